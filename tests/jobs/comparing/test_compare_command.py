"""perceive compare: what it shows, and its checks."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs
from jobs.cli.compare import above
from tests.jobs.comparing.outputs import SCORE, TEXT, Two, perceive, plain
from tests.jobs.tables import Given, of

pytestmark = pytest.mark.usefixtures("state")


def test_the_command(two: Two) -> None:
    a, b = two(TEXT)
    b = replace(b, fingerprint={"dtype": "bfloat16"})
    a.write(Given("x", of("filled", "one", "two")))
    b.write(Given("x", of("filled", "one", "tow")))
    done = perceive(a.out, b.out)
    assert done.exit_code == 0
    lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    assert lines == [
        f"A  {a.out}: 1 items, 2 rows, 0 quarantined; run runa, demo",
        f"B  {b.out}: 1 items, 2 rows, 0 quarantined; run runb, demo",
        "From A to B: dtype was 'float32', is 'bfloat16'",
        "latents: 1 items compared, 2 rows",
        "filled: 1 of 2 rows changed (50.00%)",
        "  /in/x window 1",
        "    A 'two'",
        "    B 'tow'",
        *lines[8:-1],
        f"Next, as a check: perceive compare {a.out} {b.out} --max-changed 0.5",
    ]
    assert "windows/s  not known  not known" in lines[10]
    whole = json.loads(perceive(a.out, b.out, "--json").stdout)
    assert whole == plain(jobs.compare(a.out, b.out)) | {"same": False, "exceeded": [], "exit_code": 0}
    assert "From A to B: nothing, by the two runs' fingerprints" in perceive(a.out, a.out).output
    assert "  Both hold the same.\n" in perceive(a.out, a.out).output


def test_checks_and_their_exit_code(two: Two) -> None:
    a, b = two(SCORE)
    a.write(Given("x", of("score", 1.0, 2.0)))
    b.write(Given("x", of("score", 1.0, 2.125)))
    passed = perceive(a.out, b.out, "--max-abs", "0.13", "--max-changed", "0")
    assert (passed.exit_code, passed.stdout.splitlines()[-2:]) == (
        0, ["They differ by no more than is allowed.", f"Next: perceive status {b.out}"],
    )  # fmt: skip
    failed = perceive(a.out, b.out, "--max-abs", "score=0.1", "--max-abs", "5")
    assert failed.exit_code == 6
    assert "More than is allowed: score differs by 0.125, and 0.1 is allowed\n" in failed.stdout
    told = json.loads(perceive(a.out, b.out, "--max-abs", "0.1", "--json").stdout)
    assert (told["exit_code"], told["exceeded"]) == (6, ["score differs by 0.125, and 0.1 is allowed"])
    # What it offers as a check holds now.
    offered = perceive(a.out, b.out).stdout.splitlines()[-1]
    words = offered.removeprefix("Next, as a check: perceive compare ").split()
    assert words[2:] == ["--max-abs", "score=0.13", "--max-changed", "0"]
    assert perceive(*words).exit_code == 0
    for wrong in ("x", "score=", "nan", "-1", "score=-1"):
        done = perceive(a.out, b.out, "--max-abs", wrong)
        assert done.exit_code == 2
        assert (
            f"expected a number from 0 on, or COLUMN=NUMBER, such as latents=0.01; got {wrong!r}."
            in done.output
        )


@given(st.floats(1e-9, 1e9) | st.sampled_from([0.13, 1.1, 3.0, 0.57, 255.0, math.nextafter(0.13, 1)]))
def test_a_limit_that_is_offered_is_not_below_what_it_was_made_of(value: float) -> None:
    assert value <= float(above(value)) <= value * 1.11
