"""The chain in Ray Data: its plan, its tasks, and that a shard stays whole."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from ray.exceptions import RayTaskError

from cluster.local import Resources
from perceiver_core.checkpoint import inspect
from pipelines import reader
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.plan import by_shard, cut_shards, list_and_probe, shards
from pipelines.pools import Node, fit_pools
from pipelines.sink import Commit, Sink
from pipelines.sources.files import Files
from pipelines.stages import Decode, ModelPlan, Predict, block_schema, split_block
from pipelines.tasks import Task
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from pipelines.tensors import to_numpy
from tests.clips import write_clip
from tests.conftest import save_tiny
from tests.pipelines.committing import ended, prepared
from tests.pipelines.copying import Copying, SilentMeter

TASK = MultimodalAutoencoding(top_k=2)
SOURCE = Files((), VIDEO)  # what is read is in the plan


def plan_of(media: Path, checkpoint: Path, shard_windows: int) -> tuple[pa.Table, Any]:
    config = inspect(checkpoint).config
    decoder = Decoder(TASK, config, Limits())
    return cut_shards(list_and_probe(Files((str(media),), VIDEO), [decoder]), shard_windows), config


def run(
    plan: pa.Table,
    config: Any,
    checkpoint: Path,
    out: Path,
    have: Resources,
    task: Task = TASK,
    meter: Meter | None = None,
    device: str = "cpu",
) -> tuple[Any, list[Commit]]:
    from pipelines.pipeline import build, commits

    sink = Sink(prepared(out), "run", 1, "arrow", task.output_schema(config), json.dumps({}))
    model = ModelPlan(str(checkpoint), "float32", batch=3, chunk=5000)
    pools = fit_pools([Node(*node) for node in have.nodes], None, None)
    dataset = build(
        by_shard(plan), task, config, SOURCE, Limits(), model, device, 1, sink, pools, meter or Meter.start()
    )
    made = list(commits(dataset))
    ended(plan, sink)
    return dataset, made


def operators(dataset: Any) -> list[str]:
    from ray.data._internal.logical.optimizers import get_execution_plan

    plan, *_ = get_execution_plan(dataset._logical_plan)
    return [f"{type(op).__name__}[{op.name}]" for op in plan.dag.post_order_iter()]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "long.mp4", frames=16 * 7 + 5, audio_codec="aac")
    write_clip(folder / "short.mp4", frames=20, audio_codec=None)
    (folder / "text.mp4").write_text("not a video")
    return folder


@pytest.mark.e2e
def test_plan_is_visible_and_the_same_with_and_without_gpus(
    ray_here: Resources, media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    plan, config = plan_of(media, checkpoint, shard_windows=4)
    for gpus in (0, 1):
        dataset, made = run(
            plan, config, checkpoint, tmp_path / str(gpus), Resources(((ray_here.cpus, gpus, ""),))
        )
        assert operators(dataset) == [
            "InputDataBuffer[Input]",
            "TaskPoolMapOperator[StreamingRepartition[num_rows_per_block=1,strict=False]]",
            "ActorPoolMapOperator[MapBatches(Decode)]",
            "ActorPoolMapOperator[MapBatches(Predict)]",
            "TaskPoolMapOperator[MapBatches(write_part)]",
        ]
        assert sorted(commit.shard for commit in made) == list(range(len(shards(plan))))  # one block a shard
        ran = re.findall(r"Operator \d+ (\S+): (\d+) tasks executed, (\d+) blocks produced", dataset.stats())
        shard_count = str(len(shards(plan)))
        assert ran[-3:] == [
            (f"MapBatches({stage})", shard_count, shard_count)
            for stage in ("Decode", "Predict", "write_part")
        ]
    tables = [reader.dataset(str(tmp_path / str(gpus))).to_table() for gpus in (0, 1)]
    assert tables[0].equals(tables[1])

    import ray.data

    fresh, after = ray.data.DataContext(), ray.data.DataContext.get_current()
    for name in ("target_max_block_size", "custom_execution_callback_classes", "_kv_configs"):
        assert getattr(after, name) == getattr(fresh, name)  # a run's settings are its own


@pytest.mark.e2e
def test_a_shard_over_128_mib_is_still_one_part(ray_here: Resources, tmp_path: Path) -> None:
    """At Ray's default block size a 289 MB shard reached the sink as two tasks."""
    checkpoint = save_tiny(tmp_path / "tiny", 224, 224)
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media/clip.mp4", frames=16 * 60, audio_codec=None)
    plan, config = plan_of(tmp_path / "media", checkpoint, shard_windows=60)

    out = tmp_path / "out"
    _, made = run(plan, config, checkpoint, out, Resources(((ray_here.cpus, 0, ""),)), Copying(top_k=2))
    [part] = (out / "data").iterdir()
    assert [commit.rows for commit in made] == [60]
    assert part.stat().st_size > 128 << 20
    assert (to_numpy(reader.dataset(str(out)).to_table(columns=["video"]), "video")[59] > 0).any()


def test_decode_gives_windows_then_errors(media: Path, checkpoint: Path) -> None:
    plan, config = plan_of(media, checkpoint, shard_windows=64)
    [spans] = shards(plan).values()
    block = Decode(TASK, config, SOURCE, Limits()).shard(spans)
    windows, failed = split_block(block)
    assert block.schema.equals(block_schema(TASK.input_schema(config)))
    assert windows["window"].to_pylist() == [*range(8), 0, 1]
    assert windows["frames"].to_pylist() == [16] * 7 + [5, 16, 4]
    assert windows["samples"].to_pylist() == [30_720] * 7 + [9_600, 0, 0]  # the second clip has no sound
    [error] = [json.loads(text) for text in failed["error"].to_pylist()]
    assert error["stage"] == "probe"
    assert failed["uri"].to_pylist() == [str(media / "text.mp4")]


def test_an_item_that_breaks_between_plan_and_decode_costs_one_row(
    media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("long.mp4", "short.mp4"):
        (folder / name).write_bytes((media / name).read_bytes())
    plan, config = plan_of(folder, checkpoint, shard_windows=64)
    (folder / "long.mp4").write_bytes((media / "long.mp4").read_bytes()[:9000])
    [spans] = shards(plan).values()
    windows, failed = split_block(Decode(TASK, config, SOURCE, Limits()).shard(spans))
    assert windows["uri"].unique().to_pylist() == [str(folder / "short.mp4")]
    [row] = failed.select(["uri", "first", "stop", "error"]).to_pylist()
    assert (row["uri"], row["first"], row["stop"]) == (str(folder / "long.mp4"), 0, 8)
    assert json.loads(row["error"])["stage"] == "decode"


def test_predict_does_not_depend_on_what_fills_a_batch(media: Path, checkpoint: Path) -> None:
    """Rows of a shard are computed in calls of one shape, so a row is bitwise the same however many follow it."""
    plan, config = plan_of(media, checkpoint, shard_windows=64)
    block = Decode(TASK, config, SOURCE, Limits()).shard(shards(plan)[0]).slice(3, 5)
    predict = Predict(
        TASK, ModelPlan(str(checkpoint), "float32", 3, 5000), "cpu", 2, SOURCE.kept, SilentMeter()
    )
    whole = predict(block)
    assert whole.schema.equals(block_schema(TASK.output_schema(config)))
    for rows in (1, 4):
        some = predict(block.slice(0, rows))
        assert whole.slice(0, rows).drop_columns(["notes"]).equals(some.drop_columns(["notes"]))


@pytest.mark.e2e
def test_a_shard_that_kills_its_worker_fails_the_run_in_the_end(
    ray_here: Resources, media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """By default Ray restarts the worker for ever, in silence."""

    class Deadly(MultimodalAutoencoding):
        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            os._exit(1)

    plan, config = plan_of(media, checkpoint, shard_windows=64)
    with pytest.raises(RayTaskError, match=r"Shard 0 has cost 4 workers of the stage predict"):
        run(plan, config, checkpoint, tmp_path, Resources(((ray_here.cpus, 0, ""),)), Deadly(top_k=2))
    assert not (tmp_path / "data").exists()


def test_the_plan_says_how_the_model_is_opened(checkpoint: Path) -> None:
    plan = ModelPlan(str(checkpoint), "bfloat16", 3, 5000, reference="deepmind")
    model = Predict(TASK, plan, "cpu", 2, SOURCE.kept, SilentMeter()).model
    assert model.config.reference == "deepmind"
    assert model.dtype == torch.bfloat16


@pytest.mark.e2e
def test_trouble_is_told_and_leaves_no_trace_in_the_rows(
    ray_here: Resources, media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """One shard kills its worker once, one does not fit into memory, one holds an item that no number comes of."""

    class Troubled(Copying):
        marker = tmp_path / "marker"

        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            found = super().predict(model, batch, chunk)
            if not batch["samples"].any():  # short.mp4
                return found | {"scores": np.full_like(found["scores"], np.nan)}
            if batch["window"].max() < 4 and not self.marker.exists():
                self.marker.touch()
                raise RuntimeError("CUDA error: unspecified launch failure")
            if batch["window"].max() >= 4 and len(batch["window"]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return found

    plan, config = plan_of(media, checkpoint, shard_windows=4)
    assert len(shards(plan)) == 3
    meter, have = Meter.start(), Resources(((ray_here.cpus, 0, ""),))
    _, made = run(plan, config, checkpoint, tmp_path / "out", have, Troubled(top_k=2), meter)
    _, calm = run(plan, config, checkpoint, tmp_path / "calm", have, Copying(top_k=2))

    long = pc.field("uri") == str(media / "long.mp4")
    rows = [reader.dataset(str(tmp_path / name)).to_table(filter=long) for name in ("out", "calm")]
    assert rows[0].num_rows == 8
    assert rows[0].equals(rows[1])
    bad = reader.quarantine(str(tmp_path / "out")).select(["uri", "stage", "error"]).to_pylist()
    assert sorted(bad, key=str) == [
        {"uri": str(media / "short.mp4"), "stage": "predict", "error": "NonFiniteError"},
        {"uri": str(media / "text.mp4"), "stage": "probe", "error": "MediaError"},
    ]
    notes = {commit.shard: json.loads(commit.notes or "") for commit in made}
    assert [one.get("halved") for one in (notes[0], notes[1], notes[2])] == [None, 1, None]
    assert all(one["decode_s"] > 0 and one["predict_s"] > 0 for one in notes.values())
    told = sorted(((one.pop("kind"), one.pop("time") and one) for one in meter.heard()), key=str)
    sick = "RuntimeError: CUDA error: unspecified launch failure"
    assert told == [
        ("oom_halved", {"shard": 1, "batch": 1, "chunk": 2500}),
        ("worker_replaced", {"stage": "predict", "shard": 0, "why": sick}),
        ("worker_replaced", {"stage": "predict", "shard": 2, "why": "NaN or infinity in scores"}),
    ]
    assert meter.read()["decode"] == 10
    assert not any("halved" in (commit.notes or "") for commit in calm)
