"""Runs without a model and without Ray: real decoding, and what goes in comes out."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sink import Sink, committed, write_part
from pipelines.sources.files import Files
from pipelines.stages import Decode, ModelPlan, Predict
from pipelines.storage import open_storage
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from pipelines.tensors import Format
from tests.conftest import tiny_config


class Copying(MultimodalAutoencoding):
    """The model left out: what goes in comes out."""

    def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
        rows = len(batch["video"])
        return {
            "video": batch["video"], "audio": batch["audio"],
            "labels": np.zeros((rows, 2), int), "scores": np.ones((rows, 2), np.float32),
            "video_psnr": np.full(rows, 30, np.float32), "audio_psnr": np.full(rows, 20, np.float32),
        }  # fmt: skip


class SilentMeter(Meter):
    """Without an actor nobody listens: for stages that are called without Ray."""


class ModelLess(Predict):
    """Predict, for a task that needs no model."""

    def __init__(self, task: MultimodalAutoencoding, config: PerceiverConfig) -> None:
        self.task, self.plan, self.meter = task, ModelPlan("", "float32", 4, 1), SilentMeter()
        self.kept = pa.schema([])
        self.model = SimpleNamespace(config=config, device="cpu")


@dataclass(frozen=True)
class CopyingRun:
    """A plan and where it goes, as jobs.attempt would set them up."""

    plan: pa.Table
    sink: Sink
    task: Copying
    config: PerceiverConfig
    source: Files
    decoder: Decoder

    @staticmethod
    def over(
        media: Path, out: Path, video: Any, format: Format = "arrow", shard_windows: int = 3, **options: Any
    ) -> "CopyingRun":
        task, config = Copying(top_k=2, video=video, **options), tiny_config()
        source, decoder = Files((str(media),), VIDEO), Decoder(task, config, Limits())
        plan = cut_shards(list_and_probe(source, [decoder]), shard_windows)
        columns, about = task.output_schema(config), json.dumps({"job": "copy"})
        layout: Format = "arrow" if task.staged else format
        sink = Sink(open_storage(str(out)), "run0", 1, layout, columns, about, staged=task.staged)
        return CopyingRun(plan, sink, task, config, source, decoder)

    def commit(self, stop: int | None = None) -> None:
        """Decode, copy and commit every shard that is missing, up to shard `stop`."""
        self.sink.storage.prepare()
        decode = Decode(self.task, self.config, self.source, Limits())
        decode.decoder = self.decoder  # its process is started
        predict = ModelLess(self.task, self.config)
        for shard, spans in list(shards(self.plan).items())[:stop]:
            if shard not in committed(self.sink):
                write_part(predict(decode.shard(spans)), self.sink)
