"""What the pipeline costs beside the work itself: CPU per window, and seconds against a loop written by hand.

    python -m tests.bench.orchestration [--windows 300] [--real 24]

CPU: a model that returns zeros, over 224x224 windows of 2.4 MB each. All processes of the run are counted, and what
decoding and writing take by themselves is taken off. Seconds: the published model with random weights, the same
functions in a loop in this process, one after the other, as one would write it; then the pipeline. Starting Ray and
its actors is counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from cluster.local import cores, local_ray
from perceiver_core.config import PerceiverConfig, multimodal_perceiver
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.plan import by_shard, count_windows, cut_shards, list_and_probe, shards
from pipelines.pools import Node, fit_pools
from pipelines.sink import Sink, write_part
from pipelines.sources.files import Files
from pipelines.stages import Decode, ModelPlan, Predict
from pipelines.storage import open_storage
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip

_SHARD_WINDOWS = 8


@dataclass(frozen=True)
class Zeros(MultimodalAutoencoding):
    """The model left out."""

    def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, Any]:
        rows = len(batch["video"])
        return {
            "video": np.zeros_like(batch["video"]),
            "audio": np.zeros_like(batch["audio"]),
            "labels": np.zeros((rows, self.top_k), int),
            "scores": np.zeros((rows, self.top_k), np.float32),
            "video_psnr": np.zeros(rows, np.float32),
            "audio_psnr": np.zeros(rows, np.float32),
        }


def main() -> None:
    """Measures and prints both."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.orchestration", description=__doc__)
    parser.add_argument("--windows", type=int, default=300, help="of the run without a model")
    parser.add_argument(
        "--real", type=int, default=24, help="windows of the run with the published model; 0: none"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoint = _checkpoint(folder / "model")
        _cpu(folder, checkpoint, asked.windows)
        if asked.real:
            _seconds(folder, checkpoint, asked.real)


def _cpu(folder: Path, checkpoint: Path, windows: int) -> None:
    task, config = Zeros(), multimodal_perceiver()
    source, plan = _plan(folder / "media", task, config, windows)
    decode, predict = Decode(task, config, source, Limits()), _modelless(task, config)
    sink = _sink(folder / "alone", task, config)
    sink.storage.prepare()
    alone = cpu_of(lambda: [write_part(predict(decode.shard(rows)), sink) for rows in shards(plan).values()])
    used = {}
    for few in (True, False):  # what Ray takes to start and stop is the same in both
        some = plan.slice(0, _SHARD_WINDOWS * 2) if few else plan
        some = some.filter(pc.less(some["shard"], 2)) if few else some
        out = folder / f"zeros{few}"
        used[few] = (
            count_windows(some),
            cpu_of(lambda s=some, o=out: _pipeline(s, source, task, config, checkpoint, o)),
        )  # type: ignore[misc]
    count = count_windows(plan)
    (small, small_seconds), (large, large_seconds) = used[True], used[False]
    each = (large_seconds - small_seconds) / (large - small)
    print(f"a loop that decodes and writes: {1e3 * alone / count:.1f} ms of CPU a window")
    print(
        f"the run: {1e3 * each:.1f} ms of CPU a window, and {large_seconds - each * large:.1f} s to start and stop"
    )
    print(
        f"beyond decode and write: {1e3 * (each - alone / count):.1f} ms of CPU a window, over {large} windows"
    )


def _seconds(folder: Path, checkpoint: Path, windows: int) -> None:
    import torch

    task, config = MultimodalAutoencoding(), multimodal_perceiver()
    source, plan = _plan(folder / "real", task, config, windows)
    model = _model_plan(checkpoint)
    loops, runs, colds = [], [], []
    for turn in range(2):
        decode = Decode(task, config, source, Limits())
        predict = Predict(task, model, "cpu", torch.get_num_threads(), source.kept, Meter())
        sink = _sink(folder / f"loop{turn}", task, config)
        sink.storage.prepare()
        began = time.perf_counter()
        for rows in shards(plan).values():
            write_part(predict(decode.shard(rows)), sink)
        loops.append(time.perf_counter() - began)
        del decode, predict
        began = time.perf_counter()
        cold = _pipeline(plan, source, task, config, checkpoint, folder / f"run{turn}")
        runs.append(time.perf_counter() - began - cold)
        colds.append(cold)
        print(f"loop {loops[-1]:.1f} s, run {runs[-1]:.1f} s and {cold:.1f} s of cold start", flush=True)
    print(
        f"{count_windows(plan)} windows: the run takes {statistics.median(runs) / statistics.median(loops):.2f}x the "
        f"loop's seconds, and {statistics.median(colds):.1f} s of cold start"
    )


def _pipeline(
    plan: pa.Table, source: Files, task: Any, config: PerceiverConfig, checkpoint: Path, out: Path
) -> float:
    """Run it; returns the seconds until the model's actor could have begun: Ray, its actors, the weights."""
    began = time.perf_counter()
    with local_ray(cores(), 0):
        from pipelines.pipeline import build, commits

        sink = _sink(out, task, config)
        sink.storage.prepare()
        pools = fit_pools([Node(cores())], None, None)
        meter = Meter.start()
        dataset = build(
            by_shard(plan),
            task,
            config,
            source,
            Limits(),
            _model_plan(checkpoint),
            "cpu",
            cores(),
            sink,
            pools,
            meter,
        )
        cold = 0.0
        stop = threading.Event()

        def first() -> None:
            nonlocal cold
            while not stop.wait(0.05):
                if meter.read().get("predict"):
                    cold = time.perf_counter() - began
                    return

        waiting = threading.Thread(target=first)
        waiting.start()
        for _ in commits(dataset):
            pass
        stop.set()
        waiting.join()
    return cold


class _Watched:
    """CPU seconds of this process and of all that descend from it while it lasts."""

    def __enter__(self) -> _Watched:
        self.known: dict[int, float] = {}
        self.seconds = 0.0
        self.before = _own()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.seconds = sum(self.known.values()) + _own() - self.before

    def _watch(self) -> None:
        me = psutil.Process()
        while not self.stop.wait(0.2):
            for child in me.children(recursive=True):
                with suppress(psutil.Error):
                    times = child.cpu_times()
                    self.known[child.pid] = times.user + times.system


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(call: Callable[[], Any]) -> float:
    with _Watched() as watched:
        call()
    return watched.seconds


def _plan(media: Path, task: Any, config: PerceiverConfig, windows: int) -> tuple[Files, pa.Table]:
    media.mkdir(exist_ok=True)
    frames = 16 * min(windows, 50)
    for number in range(max(1, windows // 50)):
        write_clip(media / f"{number}.mp4", frames=frames, size=(320, 240), audio_codec="aac")
    source = Files((str(media),), VIDEO)
    return source, cut_shards(list_and_probe(source, [Decoder(task, config, Limits())]), _SHARD_WINDOWS)


def _checkpoint(folder: Path) -> Path:
    import torch

    from perceiver_core import PerceiverForMultimodalAutoencoding
    from perceiver_core.checkpoint import save

    torch.manual_seed(0)
    save(PerceiverForMultimodalAutoencoding(multimodal_perceiver()), folder)
    return folder


def _model_plan(checkpoint: Path) -> ModelPlan:
    return ModelPlan(str(checkpoint), "float32", batch=4, chunk=1 << 20)


def _sink(out: Path, task: Any, config: PerceiverConfig) -> Sink:
    return Sink(open_storage(str(out)), "run", 1, "arrow", task.output_schema(config), json.dumps({}))


def _modelless(task: Any, config: PerceiverConfig) -> Predict:
    predict = Predict.__new__(Predict)
    predict.task, predict.plan, predict.meter = task, ModelPlan("", "float32", 4, 1), Meter()
    predict.model, predict.kept = type("Model", (), {"config": config})(), pa.schema([])
    return predict


if __name__ == "__main__":
    main()
