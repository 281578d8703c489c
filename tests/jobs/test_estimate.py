"""perceive plan: what it says of a run, that it fits, and that it leaves no trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from jobs import estimate, resolve
from jobs.cli import main
from jobs.estimate import Plan, Range, plan
from jobs.planning import windows_of
from jobs.probe import play, played_through, sample_of
from jobs.spec import SpecError, parse_job
from pipelines.plan import PLAN, count_shards, count_windows
from pipelines.pools import Node
from tests.jobs.inprocess import Kill, without_ray
from tests.jobs.test_runs import Bucket, fill
from tests.pipelines.committing import NoProgress
from tests.pipelines.staging import save_head

TASKS = ("text-classification", "latents")


@pytest.fixture(scope="module")
def texts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("texts") / "model", "PerceiverForSequenceClassification")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    return without_ray(monkeypatch)


def planned(bucket: Bucket, **changes: Any) -> Plan:
    supersede, nodes = changes.pop("supersede", False), changes.pop("nodes", None)
    probe, price = changes.pop("probe", False), changes.pop("price", None)
    job = parse_job(bucket.document | changes)
    return plan(job, NoProgress(), supersede=supersede, probe=probe, usd_per_gpu_hour=price, nodes=nodes)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", TASKS)
def test_it_says_what_a_run_then_does(tmp_path: Path, texts_model: Path, kill: Kill, task: str) -> None:
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="cd")
    before = tree(tmp_path)
    found = planned(bucket, probe=True)
    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]  # not even an empty folder is left
    assert (found.does, found.items, found.windows, found.shards) == ("new", 7, 7, 4)
    assert found.input_bytes == sum(len(text) for text, _ in bucket.files.values())
    assert (found.done_windows, found.done_shards) == (0, 0)
    assert found.measured
    assert (found.measured.whole, found.measured.windows) == (True, 7)
    result = bucket.run()
    assert (result.run_id, result.items) == (found.run_id, found.items)
    table = pa.dataset.dataset(str(tmp_path / "out/data"), format=found.format).to_table()
    assert [column.name for column in found.columns] == table.column_names
    assert all(column.meaning for column in found.columns)
    assert found.output_bytes
    size = sum(path.stat().st_size for path in (tmp_path / "out/data").iterdir())
    assert 0.5 * size < found.output_bytes.likely < 2 * size + 5_000  # of the quarantine
    assert found.seconds
    assert 0 < found.seconds.low < found.seconds.likely < found.seconds.high
    again = planned(bucket, probe=True)
    assert (again.does, again.done_windows, again.measured, again.run_id) == (
        "nothing",
        7,
        None,
        result.run_id,
    )


def test_it_knows_what_is_done_and_what_differs(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    with kill.after(60):
        bucket.run()
    before = tree(tmp_path)
    found = planned(bucket, probe=True)
    assert found.does == "resume"
    assert 0 < found.done_windows < found.windows
    assert found.measured
    assert found.measured.windows == found.windows - found.done_windows
    assert tree(tmp_path) == before
    assert bucket.run().windows_now == found.windows - found.done_windows
    bucket.put("h", b"new")
    with pytest.raises(SpecError, match=r"1 files added.*or add --supersede to do what is new or changed"):
        planned(bucket)
    assert planned(bucket, supersede=True).does == "changed"
    assert planned(bucket, supersede=True).items == 1
    assert planned(bucket, supersede=True, options={"top_k": 1, "overlap": 4}).does == "all"


def test_a_limit_is_planned_as_it_is_run(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    found = planned(bucket, input=bucket.document["input"] | {"limit": 3})
    assert (found.items, found.windows) == (3, 3)


def test_items_that_cannot_even_be_probed_are_counted(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.mp4").write_text("no video")
    found = plan(videos(tmp_path, checkpoint), NoProgress(), probe=False)
    assert (found.items, found.unreadable, found.windows, found.measured) == (2, 2, 0, None)


def videos(folder: Path, checkpoint: Path, **compute: Any) -> Any:
    return parse_job(
        {
            "name": "fits", "task": "multimodal-autoencoding", "model": {"checkpoint": str(checkpoint)},
            "input": {"uri": str(folder / "in")}, "output": {"uri": str(folder / "out")}, "compute": compute,
            "options": {"top_k": 2},
        }
    )  # fmt: skip


# What hangs in silence where it is let run (ray.md, 3; operations.md, B).
UNFIT = [
    # Pools that have every CPU there is: no read, no write, no end.
    ([Node(2)], {"decode_workers": 2}, r"decode_workers asks for 2 workers of 0\.5 CPUs, but of 2 CPUs 0\.6875 are "
     r"left beside feeding, predicting and writing: set it to at most 1\."),
    ([Node(16)], {"decode_workers": 16}, r"of 16 CPUs 7\.4 are left .*: set it to at most 7\."),
    # Pools that fit, until the largest node goes.
    ([Node(64), Node(4)], {"decode_workers": 4}, r"of 4 CPUs without the largest of 2 nodes 1\.4 are left"),
    ([Node(16, 4), Node(16, 4)], {"predict_workers": 8}, r"asks for 8 workers of 1 GPUs, there is room for 4 without "
     r"the largest of 2 nodes: set it to at most 4\."),
    # Workers on GPUs reserve CPUs, too: beside these there are none.
    ([Node(8, 8)], {"decode_workers": 6}, r"decode_workers asks for 6 workers of 1 CPUs, but of 8 CPUs 5\.4 are left"),
    ([Node(4, 1)], {"predict_workers": 2}, r"asks for 2 workers of 1 GPUs, there is room for 1: set it to at most 1\."),
    ([Node(4)], {"device": "cuda"}, r"device asks for cuda, but none of the target's 1 nodes has a GPU\."),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "compute", "why"), UNFIT)
def test_what_would_hang_is_refused(
    tmp_path: Path, checkpoint: Path, nodes: list[Node], compute: dict[str, Any], why: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(SpecError, match=why):
        plan(videos(tmp_path, checkpoint, **compute), NoProgress(), nodes=nodes)


def test_the_command_refuses_it_with_exit_code_2(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_text("no video")
    (tmp_path / "job.yaml").write_text(videos(tmp_path, checkpoint).model_dump_json())
    for cpus, wanted, most in ((2, 2, 1), (8, 4, 3)):
        monkeypatch.setattr(resolve, "cores", lambda cpus=cpus: cpus)
        arguments = [
            "plan",
            str(tmp_path / "job.yaml"),
            "--no-probe",
            "--json",
            "-o",
            f"compute.decode_workers={wanted}",
        ]
        refused = CliRunner().invoke(main, arguments)
        assert refused.exit_code == 2
        assert f"set it to at most {most}." in json.loads(refused.stdout)["error"]
        fits = CliRunner().invoke(main, [*arguments, "-o", f"compute.decode_workers={most}"])
        assert fits.exit_code == 0, fits.output
        asked = {one["stage"]: one for one in json.loads(fits.stdout)["stages"]}
        assert asked["decode"]["workers"] == most


FITS: list[list[Node]] = [
    [Node(2)],
    [Node(16)],
    [Node(16, 8)],
    [Node(64), Node(4)],
    [Node(16, 4), Node(64, 8), Node(16, 4)],
    [Node(0), Node(8, 1)],
]


@pytest.mark.parametrize("nodes", FITS)
def test_what_fits_is_said_to_with_the_largest_node_gone(
    tmp_path: Path, checkpoint: Path, nodes: list[Node]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_text("no video")
    found = plan(videos(tmp_path, checkpoint), NoProgress(), nodes=nodes)
    cpus = sum(one.workers * one.cpus for one in found.stages)
    gpus = sum(one.workers * one.gpus for one in found.stages)
    assert cpus <= found.lasting[0] + 1e-9
    assert gpus <= found.lasting[1]
    assert (found.seconds, found.measured) == (None, None)  # another machine is not measured here
    assert found.fits.startswith(
        f"It fits: all stages beside each other ask for {cpus:.2f} of {found.lasting[0]:g} CPUs"
    )
    assert (f"with the largest of {len(nodes)} nodes gone" in found.fits) == (len(nodes) > 1)


def test_what_is_shown(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, bad="a")
    (tmp_path / "job.yaml").write_text(bucket.job.model_dump_json())
    shown = CliRunner().invoke(main, ["plan", str(tmp_path / "job.yaml"), "--limit", "5", "--price", "2.5"])
    assert shown.exit_code == 0, shown.output
    for text in (
        "texts: text-classification into", "5 items, 5 windows, 34 B, in 3 shards", "Columns of the output (parquet)",
        "names of at most top_k labels", "It fits: all stages beside each other ask for", "Time: about",
        "measured by all of the windows in 3 shards", "Size: about", "beside it until the table is there",
        "Price: it uses no GPU",
    ):  # fmt: skip
        assert text in " ".join(shown.stdout.split()), text
    bare = CliRunner().invoke(main, ["plan", str(tmp_path / "job.yaml"), "--no-probe"])
    assert "Time and size: not measured" in bare.stdout


def test_a_price_is_gpus_times_hours(
    tmp_path: Path, texts_model: Path, kill: Kill, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    monkeypatch.setattr(resolve, "gpus_of", lambda job: 2)
    monkeypatch.setattr(resolve, "_dtype", lambda *_: "float32")
    monkeypatch.setattr(estimate, "_seconds", lambda *_: Range(1800, 3600, 7200))
    found = planned(bucket, price=2.5)
    assert found.usd == Range(2.5, 5, 10)
    assert planned(bucket).usd is None


def table_of(sizes: list[list[int]], unit: list[bool] | None = None) -> pa.Table:
    """A plan of shards with spans of so many windows, each an item; of a long one, the shards say `unit`."""
    rows = []
    reached, item = 0, 0
    for shard, spans in enumerate(sizes):
        for windows in spans:
            goes_on = bool(unit and shard and unit[shard])
            item, reached = (item, reached) if goes_on else (item + 1, 0)
            rows.append(
                {"shard": shard, "item_id": f"{item}", "version": "1", "uri": f"/{item}", "size": 1, "first": reached,
                 "stop": reached + windows}
            )  # fmt: skip
            reached += windows
    return pa.Table.from_pylist([dict.fromkeys(PLAN.names) | row for row in rows], PLAN)


SIZES = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4), min_size=1, max_size=400)


@given(sizes=SIZES, batch=st.integers(1, 8), heads=st.integers(1, 4))
def test_a_sample_is_a_plan_of_its_own(sizes: list[list[int]], batch: int, heads: int) -> None:
    whole = table_of(sizes)
    sample = sample_of(whole, batch, heads, False)
    numbers = sample.plan["shard"].to_numpy()
    assert (np.diff(numbers) >= 0).all()
    assert set(numbers.tolist()) == {*range(count_shards(sample.plan))}
    assert sample.heads <= 2 * heads
    assert sample.whole == (len(sizes) <= 256)
    wholes = sample.plan.filter(pa.array(numbers >= sample.heads))
    if sample.whole:
        assert sorted(wholes["item_id"].to_pylist()) == sorted(whole["item_id"].to_pylist())
        assert count_windows(wholes) == count_windows(whole)
    for shard in range(sample.heads):
        assert windows_of(sample.plan, np.arange(count_shards(sample.plan)) == shard) <= batch


@given(unit=st.lists(st.booleans(), min_size=1, max_size=300), batch=st.integers(1, 8))
def test_a_sample_of_long_items_is_of_their_beginnings(unit: list[bool], batch: int) -> None:
    sample = sample_of(table_of([[20]] * len(unit), unit), batch, 1, True)
    wholes = sample.plan.filter(pa.array(sample.plan["shard"].to_numpy() >= sample.heads))
    reached: dict[str, int] = {}
    for row in wholes.to_pylist():
        assert row["first"] == reached.get(row["item_id"], 0)
        reached[row["item_id"]] = row["stop"]


COSTS = st.tuples(*[st.floats(0.001, 2)] * 3)


@given(
    windows=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    costs=COSTS,
    workers=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_a_run_that_is_played_takes_as_long_as_it_must(
    windows: list[int], costs: tuple[float, ...], workers: tuple[int, ...]
) -> None:
    ends = play(windows, costs, workers)
    least = max(sum(windows) * cost / count for cost, count in zip(costs, workers, strict=True))
    longest = max(windows) * sum(costs)
    assert max(ends) >= max(least, longest) - 1e-6
    assert max(ends) <= least + 4 * longest + 1e-6
    assert played_through(table_of([[size] for size in windows]), costs, workers) == pytest.approx(max(ends))


def test_of_a_million_shards_some_are_played() -> None:
    windows = [8, 4] * 50_000
    plan = pa.table({"shard": pa.array(range(100_000), pa.int32()), "first": [0] * 100_000, "stop": windows})
    assert played_through(plan, (0.1, 0.2, 0.01), (2, 1, 1)) == pytest.approx(600_000 * 0.2, rel=0.01)
