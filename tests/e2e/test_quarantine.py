"""perceive errors, retry, gc and --supersede, as a user calls them."""

import json
from pathlib import Path

import pytest

from pipelines import reader
from tests.e2e.command import perceive, write_job
from tests.faults.ledger import balance
from tests.pipelines.staging import save_head

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("texts") / "model", "PerceiverForSequenceClassification")


@pytest.mark.timeout(300)  # three runs, each with a Ray of its own
def test_from_a_bad_text_to_a_whole_table(model: Path, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts", str(tmp_path / "out")
    texts.mkdir()
    for name in "abcd":
        (texts / f"{name}.txt").write_text(f"text {name}")
    (texts / "bad.txt").write_bytes(b"\xff\xfe no text")
    (texts / "long.txt").write_text("x" * 100)
    options = {"top_k": 2, "overlap": 4, "csv": True}
    job = write_job(tmp_path, texts, model, task="text-classification", options=options, limits={"text": 50})
    assert perceive("errors", out).returncode == 2
    done = perceive("run", job)
    assert done.returncode == 3, done.stderr
    shown = perceive("errors", out)
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "1 x LimitError (decode), 1 items; such as"
    assert lines[1].startswith(f"    {texts}/long.txt: bytes of the text: 100 are more than the 50")
    assert lines[-1] == f"Mend what can be mended, then: perceive retry {out}"
    named = json.loads(perceive("errors", out, "--class", "TextError", "--list", "--json").stdout)
    assert [Path(row["uri"]).name for row in named["errors"]] == ["bad.txt"]

    wrong = perceive("retry", out, "--class", "MediaError")
    assert wrong.returncode == 2
    assert (
        "Nothing in quarantine is of the class MediaError. There is: LimitError, TextError." in wrong.stderr
    )
    (texts / "bad.txt").write_text("a text")
    retried = perceive("retry", out, "-o", "limits.text=200", "--json")
    result = json.loads(retried.stdout)
    assert (retried.returncode, result["windows_now"], result["quarantined"]) == (0, 2, 0), retried.stderr
    assert not balance(out).wrong
    assert perceive("errors", out).stdout == "Nothing is in quarantine.\n"
    assert len((tmp_path / "out/labels.csv").read_text().splitlines()) == 1 + reader.manifest(out).rows
    assert perceive("retry", out).stdout.startswith("Nothing to retry: quarantine is empty")

    (texts / "new.txt").write_text("new")
    refused = perceive("run", job)
    assert refused.returncode == 2
    assert "input (1 files added, 0 changed, 0 gone)" in refused.stderr
    superseded = json.loads(perceive("run", job, "--supersede", "--json").stdout)
    assert (superseded["windows_now"], superseded["items"]) == (1, 7)
    assert not balance(out).wrong
    young = json.loads(perceive("gc", out, "--json").stdout)
    assert young["files"] == []
    assert young["kept"] > 0
    wrong = perceive("gc", out, "--grace", "soon")
    said = "--grace: expected a span of time such as 90s, 30m, 2h or 1d; got 'soon'."
    assert (wrong.returncode, said in wrong.stderr) == (2, True)
    old = json.loads(perceive("gc", out, "--grace", "0s", "--json").stdout)
    assert old["files"]
    assert not balance(out).wrong
    assert {f"data/{path.name}" for path in (tmp_path / "out/data").iterdir()} == {
        part.path for part in reader.manifest(out).parts
    }
