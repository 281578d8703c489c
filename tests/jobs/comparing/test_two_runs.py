"""jobs.compare of runs: of another dtype, of several runs' tables, and of those that are not done."""

from pathlib import Path

import numpy as np
import pytest

import jobs
from jobs.comparing.comparison import ComparisonError, Few, Rows
from jobs.errors import UnknownRunError, exit_code
from jobs.garbage import collect
from pipelines import reader
from tests.jobs.bucket import OPTIONS, Bucket, fill
from tests.jobs.comparing.outputs import perceive
from tests.jobs.inprocess import Kill
from tests.pipelines.committing import NoProgress

pytestmark = pytest.mark.usefixtures("state")


@pytest.mark.parametrize("task", ["text-classification", "latents"])
def test_another_dtype(tmp_path: Path, texts_model: Path, kill: Kill, task: str) -> None:
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="c")
    bucket.put("long", b"a long text " * 20)  # has several windows
    bucket.run()
    model = bucket.document["model"] | {"dtype": "bfloat16"}
    other = str(tmp_path / "other")
    bucket.remove("b")
    bucket.put("e", b"other")
    bucket.put("z", b"new")
    bucket.run(output={"uri": other}, model=model, compute={"batch": 2, "shard_windows": 3})
    found = jobs.compare(bucket.out, other)
    tables = [reader.dataset(out).to_table() for out in (bucket.out, other)]
    rows, there = (table.to_pylist() for table in tables)
    assert found.differences == (
        "dtype was 'float32', is 'bfloat16'",
        "input (1 files added, 1 changed, 1 gone)",
        "shard_windows was 2, is 3",
    )
    assert (found.items.both, found.items.compared) == (6, 5)
    assert found.items.only_a == Few(1, (f"{bucket.folder}/b.txt",))
    assert found.items.only_b == Few(1, (f"{bucket.folder}/z.txt",))
    assert found.items.other_version == Few(1, (f"{bucket.folder}/e.txt",))
    assert found.items.quarantined_both == Few(1, (f"{bucket.folder}/c.txt",))
    assert found.rows == Rows(len(rows) - 2, 0, 0)
    assert (found.a.output, found.b.output, found.a.rows, found.b.rows) == (
        bucket.out,
        other,
        len(rows),
        len(there),
    )
    assert (found.a.runs, found.a.job, found.a.checkpoint) == (1, "texts", str(texts_model))
    own, new = ({(row["uri"], row["window"]): row for row in table} for table in (rows, there))
    shared = [key for key in own if key in new and not key[0].endswith("/e.txt")]
    assert not found.same
    if task == "latents":
        [numbers] = found.numbers
        vectors = [
            dict(zip(keys, reader.to_numpy(table, "latents"), strict=True))
            for keys, table in zip((own, new), tables, strict=True)
        ]
        far = np.abs([np.subtract(vectors[0][key], vectors[1][key], dtype=float) for key in shared])
        assert (numbers.name, numbers.rows, numbers.psnr) == ("latents", len(shared), None)
        assert (numbers.max_abs, numbers.mean_abs) == pytest.approx((far.max(), far.mean()))
        assert 0 < numbers.relative < 0.1
    else:
        assert found.labels
        changed = [key for key in shared if own[key]["labels"][0] != new[key]["labels"][0]]
        assert (found.labels.rows, found.labels.top_changed) == (len(shared), len(changed))
        assert 0 < found.labels.scores.max_abs < 0.1
    # The other way round it is the mirror image; and limited to A's first items, less of it.
    back = jobs.compare(other, bucket.out)
    assert (back.items.only_a, back.items.only_b) == (found.items.only_b, found.items.only_a)
    assert back.rows == found.rows
    less = jobs.compare(bucket.out, other, limit=2, examples=0)
    assert (less.items.compared, less.items.beyond_limit, less.rows) == (2, 3, Rows(2, 0, 0))
    assert less.items.only_a == Few(1)
    # And an output is what it is.
    same = jobs.compare(bucket.out, bucket.out)
    assert same.same
    assert same.rows == Rows(len(rows), 0, 0)
    assert same.differences == ()


def test_tables_of_several_runs_and_of_earlier_ones(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, "latents")
    fill(bucket, bad="a")
    first = bucket.run()
    bucket.put("a", b"mended")
    bucket.put("b", b"changed")
    second = bucket.run(supersede=True)
    runs = [f"{bucket.out}/runs/{one.run_id}" for one in (first, second)]
    found = jobs.compare(*runs)
    assert (found.a.manifest, found.b.manifest, found.a.runs, found.b.runs) == (1, 2, 1, 2)
    assert found.items.other_version == Few(2, tuple(f"{bucket.folder}/{name}.txt" for name in "ab"))
    assert (found.rows, found.numbers[0].changed) == (Rows(5, 0, 0), 0)
    newest = jobs.compare(bucket.out, runs[1])
    assert (newest.same, newest.a, newest.rows.compared) == (True, newest.b, 7)
    shown = perceive(*runs).output
    assert "B's rows are of 2 runs; its speed is that of the one that closed it." in shown
    collect(bucket.out, 0, False, NoProgress())
    with pytest.raises(ComparisonError) as raised:
        jobs.compare(*runs)
    assert str(raised.value) == (
        f"1 of the 4 files of run {first.run_id}'s table are not in {bucket.out} any more: a later run superseded "
        "them, and perceive gc has deleted them. Compare the newest table, or run the job again into another output."
    )
    assert jobs.compare(runs[1], bucket.out).same


def test_a_run_by_its_id_and_those_that_are_not_done(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    result = jobs.run(bucket.job)
    assert jobs.compare(result.run_id[:6], "texts").same
    with pytest.raises(UnknownRunError, match=r"There is no run zz here\."):
        jobs.compare("zz", bucket.out)
    for name in (str(tmp_path / "in"), f"{bucket.out}/runs/zz", str(tmp_path / "none")):
        with pytest.raises(ComparisonError) as raised:
            jobs.compare(bucket.out, name)
        assert str(raised.value) == (
            f"No finished run in {name}: expected manifests/<n>.json there. Name an output's folder or URI, or one of "
            "its runs, OUTPUT/runs/<run-id>; of a run that is not done, run its job to its end first."
        )
    with kill.after(60):
        bucket.run(supersede=True, options=OPTIONS | {"top_k": 3})
    runs = {path.parent.name for path in Path(bucket.out, "runs").glob("*/run.json")}
    [other] = runs - {result.run_id}
    with pytest.raises(ComparisonError) as raised:
        jobs.compare(bucket.out, f"{bucket.out}/runs/{other}")
    assert str(raised.value) == (
        f"Run {other} in {bucket.out} has closed no table. Run its job to its end first: perceive resume {other}"
    )
    assert exit_code(raised.value) == 2
