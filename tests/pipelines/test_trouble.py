"""Devices that are short of memory or sick, and numbers that no model should answer: in Predict, without Ray."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines import stages
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.errors import ItemError
from pipelines.limits import Limits
from pipelines.meter import Counts, Meter
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sources.files import Files
from pipelines.stages import Decode, ModelPlan, notes_of, split_block
from pipelines.trouble import DeadlyShardError, DeviceError, DeviceMemoryError, nonfinite, survivable
from tests.clips import write_clip
from tests.conftest import tiny_config
from tests.pipelines.copying import Copying, ModelLess
from tests.pipelines.told import Told

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """A shard of two items, three windows and two."""
    folder, task = tmp_path_factory.mktemp("media"), Copying(top_k=2)
    write_clip(folder / "a.mp4", frames=16 * 3, audio_codec="aac")
    write_clip(folder / "b.mp4", frames=16 * 2, audio_codec="aac", size=(48, 64))
    source = Files((str(folder),), VIDEO)
    decode = Decode(task, CONFIG, source, Limits())
    with closing(decode.decoder), closing(Decoder(task, CONFIG, Limits())) as decoder:
        return decode.shard(shards(cut_shards(list_and_probe(source, [decoder]), 64))[0])


def without_notes(block: pa.Table) -> pa.Table:
    return block.drop_columns(["notes"])


class Left(BaseException):
    """The process would have ended."""


@pytest.fixture
def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise Left

    monkeypatch.setattr(stages, "end_process", end)


@dataclass(frozen=True)
class Hungry(Copying):
    """Has memory for so many windows and points."""

    windows: int = 100
    room: int = 10_000

    def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
        if len(batch["video"]) > self.windows or chunk > self.room:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has none.\nMore."
            )
        return super().predict(model, batch, chunk)


def predictor(task: Copying, meter: Meter, dtype: str = "float32") -> ModelLess:
    predict = ModelLess(task, CONFIG)
    predict.plan, predict.meter = ModelPlan("", dtype, 4, 1000), meter
    predict.model = SimpleNamespace(config=CONFIG, device="cuda:0")
    return predict


def test_a_shard_that_does_not_fit_is_done_with_half_and_half_again(block: pa.Table) -> None:
    meter = Told()
    predict = predictor(Hungry(top_k=2, windows=2, room=300), meter)
    done, calm = predict(block), predictor(Copying(top_k=2), Told())(block)
    assert without_notes(done).equals(without_notes(calm))
    kept = {"decode_s", "decoded_bytes", "decode_peak", "predict_s", "predict_peak"}
    assert notes_of(calm).keys() == kept | {"device_peak"}
    assert all(notes_of(calm)[name] > 0 for name in kept)
    assert notes_of(done) == notes_of(done) | {"halved": 2}
    assert done["notes"].null_count == done.num_rows - 1
    assert meter.counts.read() == {"predict": 5}  # each window once
    assert [(one["kind"], one["shard"], one["batch"], one["chunk"]) for one in meter.heard()] == [
        ("oom_halved", 0, 2, 500),
        ("oom_halved", 0, 1, 250),
    ]
    assert predict.plan.batch == 4  # the next shard is begun as planned


def test_windows_are_counted_once_however_late_memory_runs_out(block: pa.Table) -> None:
    class Later(Copying):
        calls = 0

        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            Later.calls += 1
            if Later.calls == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().predict(model, batch, chunk)

    meter = Told()
    predictor(Later(top_k=2), meter)(block)
    assert meter.counts.read() == {"predict": 5}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
        ),  # as an H100 did
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
    ids=["torch", "cublas", "cudnn", "driver"],
)
def test_libraries_without_memory_are_no_sick_device(block: pa.Table, error: RuntimeError) -> None:
    """What PyTorch's allocator holds, CUDA's libraries have not: once it lets go, they begin."""

    class Short(Copying):
        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            if len(batch["video"]) > 2:
                raise error
            return super().predict(model, batch, chunk)

    meter = Told()
    assert notes_of(predictor(Short(top_k=2), meter)(block))["halved"] == 1
    assert [(one["kind"], one["batch"], one["chunk"]) for one in meter.heard()] == [("oom_halved", 2, 500)]


@pytest.mark.parametrize(
    ("dtype", "advice"), [("float32", r"set model\.dtype to bfloat16, "), ("bfloat16", "")]
)
def test_a_window_that_does_not_fit_says_what_to_set(block: pa.Table, dtype: str, advice: str) -> None:
    predict = predictor(Hungry(top_k=2, windows=0), Told(), dtype)
    with pytest.raises(
        DeviceMemoryError,
        match=r"The device cuda:0 ran out of memory with one window and one output point at a time: expected room for "
        r"another 2\.50 GiB beside the model; got: CUDA out of memory\. Tried to allocate 2\.50 GiB\. GPU 0 has none\. "
        rf"End what else uses the device, {advice}choose a device with more memory, or set compute\.device to cpu;",
    ):
        predict(block)


SICK = [
    torch.AcceleratorError("an illegal memory access was encountered"),
    RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be"),
    RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("Triggered internally: device-side assert"),
]


@pytest.mark.parametrize("error", SICK, ids=lambda error: str(error)[:12])
@pytest.mark.usefixtures("stays")
def test_a_sick_device_gets_two_new_processes(block: pa.Table, error: RuntimeError) -> None:
    class Sick(Copying):
        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            raise error

    meter = Told()
    for _ in range(2):
        with pytest.raises(Left):
            predictor(Sick(top_k=2), meter)(block)
    said = str(error).splitlines()[0]
    with pytest.raises(
        DeviceError, match=r"Shard 0 met an error of its device 3 times, each in another process"
    ) as last:
        predictor(Sick(top_k=2), meter)(block)
    assert f"the last: {said}. Look for the device's own errors (nvidia-smi -q, dmesg)" in str(last.value)
    why = f"{type(error).__name__}: {said}"
    assert [(one["kind"], one["stage"], one["shard"], one["why"]) for one in meter.heard()] == [
        ("worker_replaced", "predict", 0, why)
    ] * 2


@pytest.mark.usefixtures("stays")
def test_an_error_of_the_task_is_raised_as_it_is(block: pa.Table) -> None:
    class Wrong(Copying):
        def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        predictor(Wrong(top_k=2), Told())(block)


# --- numbers that no model should answer


@dataclass(frozen=True)
class Overflowing(Copying):
    """Answers NaN, or infinity, in a column of these windows, by their number in the shard."""

    column: str = "audio"
    rows: tuple[int, ...] = ()
    number: float = float("nan")

    def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
        found = super().predict(model, batch, chunk)
        values = found[self.column].copy()
        which = [MARKS[video.tobytes()] for video in batch["video"]]
        values[[at for at, row in enumerate(which) if row in self.rows]] = self.number
        return found | {self.column: values}


MARKS: dict[bytes, int] = {}  # a window's number in its shard, by its pixels: rows of a batch are of any


@pytest.fixture
def marked(block: pa.Table) -> pa.Table:
    """The block, its windows known to Overflowing."""
    MARKS.update({video.as_py(): row for row, video in enumerate(block["video"])})
    return block


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("column", ["audio", "scores"])
@pytest.mark.usefixtures("stays")
def test_nan_twice_costs_its_span_and_no_other(marked: pa.Table, column: str, number: float) -> None:
    meter, calm = Told(), predictor(Copying(top_k=2), Told())(marked)
    task = Overflowing(top_k=2, column=column, rows=(1, 2), number=number)
    with pytest.raises(Left):
        predictor(task, meter, "bfloat16")(marked)
    done = predictor(task, meter, "bfloat16")(marked)
    windows, failed = split_block(done)
    assert without_notes(windows).equals(without_notes(calm.slice(3)))  # the other item's, bit by bit
    [row] = failed.select(["shard", "first", "stop", "error"]).to_pylist()
    assert (row["shard"], row["first"], row["stop"]) == (0, 0, 3)
    error = ItemError.from_json(row["error"])
    assert (error.stage, error.kind) == ("predict", "NonFiniteError")
    assert error.message == (
        f"expected finite numbers of the model; got NaN or infinity in {column} (2 windows), twice, from two "
        "processes. Set model.dtype to float32: bfloat16 overflows sooner. Check the item, and the checkpoint with "
        "others, or leave the item out of the input."
    )
    assert "predict_s" in notes_of(done)
    assert [(one["kind"], one["why"]) for one in meter.heard()] == [
        ("worker_replaced", f"NaN or infinity in {column}")
    ]


@pytest.mark.usefixtures("stays")
def test_a_shard_of_nothing_but_nan_is_nothing_but_failed_spans(marked: pa.Table) -> None:
    meter, task = Told(), Overflowing(top_k=2, rows=tuple(range(5)))
    with pytest.raises(Left):
        predictor(task, meter)(marked)
    windows, failed = split_block(predictor(task, meter)(marked))
    assert (windows.num_rows, failed["first"].to_pylist()) == (0, [0, 0])
    assert "model.dtype" not in failed["error"][0].as_py()  # it is float32 already


@pytest.mark.usefixtures("stays")
def test_nan_that_was_a_sick_device_leaves_no_trace_in_the_rows(marked: pa.Table) -> None:
    meter = Told()
    with pytest.raises(Left):
        predictor(Overflowing(top_k=2, rows=(0,)), meter)(marked)
    done, calm = (predictor(Copying(top_k=2), meter)(marked) for meter in (meter, Told()))
    assert without_notes(done).equals(without_notes(calm))


@pytest.mark.usefixtures("stays")
def test_silence_reconstructed_as_silence_is_infinitely_good(marked: pa.Table) -> None:
    task = Overflowing(top_k=2, column="audio_psnr", rows=(0,), number=float("inf"))
    assert np.isinf(predictor(task, Told())(marked)["audio_psnr"][0].as_py())
    with pytest.raises(Left):
        predictor(Overflowing(top_k=2, column="audio_psnr", rows=(0,)), Told())(marked)  # NaN


def test_rows_that_are_lists_are_looked_at_as_well() -> None:
    flow = [np.zeros((2, 3, 2), np.float32), np.full((4, 4, 2), np.nan, np.float32)]
    latents = np.zeros((2, 4, 8), np.float16)
    latents[0, 0, 0] = np.inf
    masks = nonfinite({"flow": flow, "latents": latents, "labels": np.zeros((2, 3), int), "none": []})
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "flow": [False, True], "latents": [True, False]
    }  # fmt: skip


# --- what is told


def test_no_more_is_kept_than_somebody_will_hear() -> None:
    counts = Counts()
    for shard in range(10_003):
        counts.tell("oom_halved", {"shard": shard})
    heard = counts.heard()
    assert [one["shard"] for one in heard[:-1]] == list(range(10_000))  # the first: they say how it began
    assert {**heard[-1], "time": ""} == {"kind": "told_less", "time": "", "left_out": 3}
    assert all(datetime.fromisoformat(one["time"]).tzinfo for one in heard)
    assert counts.heard() == []
    assert counts.signs() == ({}, 10_003)


def test_replacements_are_counted_by_shard_and_sign() -> None:
    counts = Counts()
    assert [counts.may_replace("predict", 1, "device", "why", 2) for _ in range(3)] == [True, True, False]
    assert counts.may_replace("predict", 2, "device", "why", 2)
    assert counts.may_replace("predict", 1, "numbers", "why", 1)
    assert not counts.may_replace("predict", 1, "numbers", "why", 1)


def test_a_shard_may_cost_three_workers_and_no_more() -> None:
    meter = Told()
    for _ in range(4):
        survivable(meter, "predict", 7)
    survivable(meter, "predict", 8)
    survivable(meter, "decode", 7)
    with pytest.raises(
        DeadlyShardError,
        match=r"Shard 7 has cost 4 workers of the stage predict, which died over it without a word, as they do where "
        r"the kernel ends them because memory is short .* with a smaller compute\.batch, or with fewer workers a ",
    ):
        survivable(meter, "predict", 7)
    meter.end("predict", 7)
    survivable(meter, "predict", 7)  # after it is done, as where what came of it is lost with a node


def test_without_an_actor_nobody_listens() -> None:
    meter = Meter()
    meter.add("predict", 3)
    meter.tell("oom_halved", shard=1)
    assert not meter.may_replace("predict", 1, "device", "why", 2)  # a process that nobody would replace
