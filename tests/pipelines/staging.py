"""Decode and Predict without Ray, on tiny checkpoints of any head, whose answers differ from input to input."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

import perceiver_core
from perceiver_core import PerceiverConfig
from perceiver_core.checkpoint import load, save
from pipelines.decoding import Decoder
from pipelines.errors import ItemError
from pipelines.limits import Limits
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sources import Source
from pipelines.stages import Decode, ModelPlan, Predict, split_block
from pipelines.tasks import Task
from tests.pipelines.copying import SilentMeter

_ENCODER: dict[str, Any] = {
    "num_latents": 8,
    "d_latents": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
}
_TEXT = {"num_cross_attention_heads": 2, "d_model": 24, "max_position_embeddings": 50}
SIZES: dict[str, dict[str, Any]] = {
    "PerceiverForMaskedLM": {**_ENCODER, **_TEXT, "qk_channels": 8, "v_channels": 16},
    "PerceiverForSequenceClassification": {
        **_ENCODER,
        **_TEXT,
        "id2label": {0: "poem", 1: "prose", 2: "recipe"},
    },
    "PerceiverForOpticalFlow": {**_ENCODER, "d_model": 322, "train_size": (24, 32)},
}


def save_head(folder: Path, head: str, **changes: Any) -> Path:
    """A checkpoint of a head with weights as large as trained ones are: by default all answers are nearly the same."""
    config = PerceiverConfig(**{**SIZES[head], **changes})
    model = getattr(perceiver_core, head)(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "layernorm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.ndim > 1 and "embeddings" not in name:
                parameter.copy_(noise * 1.5 * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(noise if parameter.ndim > 1 else 0.3 * noise)
    save(model, folder)
    return folder


def stages(
    task: Task,
    checkpoint: Path,
    source: Source,
    *,
    batch: int = 3,
    fold: bool = True,
    shard_windows: int = 64,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> tuple[pa.Table, dict[str, ItemError]]:
    """The output's rows, and the errors by the name of the item's file."""
    torch.set_num_threads(1)
    config = load(checkpoint).config
    task.check(config)
    plan = cut_shards(list_and_probe(source, [Decoder(task, config, limits)]), shard_windows)
    model = ModelPlan(str(checkpoint), "float32", batch, task.chunk(config, batch, 1 << 20), fold=fold)
    decode = Decode(task, config, source, limits)
    predict = Predict(task, model, "cpu", 1, source.kept, SilentMeter())
    with closing(decode.reader):
        blocks = [split_block(predict(decode.shard(spans))) for spans in shards(plan).values()]
    failed: Sequence[dict[str, Any]] = pa.concat_tables([block for _, block in blocks]).to_pylist()
    errors = {Path(row["uri"]).name: ItemError.from_json(row["error"]) for row in failed}
    return pa.concat_tables([rows.drop_columns(["notes"]) for rows, _ in blocks]), errors
