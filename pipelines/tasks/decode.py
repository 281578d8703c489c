"""decode: latents in, any output points out, without what the latents were made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from perceiver_core.errors import PerceiverError
from pipelines import multimodal, pictures
from pipelines.contents import LATENTS, Content
from pipelines.describing import column, option
from pipelines.labels import LABELS, check_labels, check_options, most_likely, named
from pipelines.limits import Limits
from pipelines.points import (
    CHOICES,
    OUTPUTS,
    Chosen,
    Output,
    check_outputs,
    chunk_of,
    decode_points,
    indices,
    output_points,
    tensor_fields,
)
from pipelines.tensors import Format, pack

_MASKED, _FLOW = "PerceiverForMaskedLM", "PerceiverForOpticalFlow"
_LABELS_ONLY = (*pictures.ARCHITECTURES, "PerceiverForSequenceClassification")


class LatentsError(PerceiverError, ValueError):
    """Something is wrong with a tensor; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Decode:
    """Decode latents that were stored: video, sound and labels, a classifier's labels, or a text's bytes."""

    name: ClassVar[str] = "decode"
    architectures: ClassVar[tuple[str, ...]] = (multimodal.ARCHITECTURE, *_LABELS_ONLY, _MASKED)
    refused: ClassVar[dict[str, str]] = {  #: why not
        _FLOW: "Optical flow can't be decoded from latents alone, for its decoder's queries are made of the frames: "
        "use the task optical-flow on these."
    }
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((LATENTS,),)
    probes: ClassVar[bool] = False
    preview: ClassVar[tuple[str, ...]] = ()
    reconstructs: ClassVar[bool] = False

    outputs: tuple[Output, ...] = option(OUTPUTS, "of the multimodal model, what is decoded")
    points: Chosen = option("all", f"of the multimodal model, which pixels: {CHOICES}")
    positions: tuple[int, ...] | None = option(
        None, "of masked-lm's model, which tokens, counted from 0, [CLS]; none: all it has"
    )
    top_k: int = option(5, "how many labels a row gets at most, or tokens a position")
    threshold: float = option(0.0, "labels with a lower score are left out")

    def __post_init__(self) -> None:
        check_options(self.top_k, self.threshold)
        check_outputs(self.outputs)

    @property
    def format(self) -> Format:
        return "parquet" if self.outputs == ("labels",) else "arrow"

    @property
    def assembly(self) -> None:
        return None

    @property
    def staged(self) -> bool:
        return False

    def check(self, config: PerceiverConfig) -> None:
        kind = config.architectures[0]
        if kind in self.refused:
            raise ValueError(self.refused[kind])
        if kind != multimodal.ARCHITECTURE and (self.points != "all" or {*self.outputs} != {*OUTPUTS}):
            raise ValueError(
                f"points and outputs are of {multimodal.ARCHITECTURE}; got a {kind}. Leave them out."
            )
        if kind != _MASKED and self.positions is not None:
            raise ValueError(f"positions are of {_MASKED}; got a {kind}. Leave them out.")
        if kind == _MASKED:
            _check_positions(self.positions, self.top_k, config)
            return
        if kind in _LABELS_ONLY or "labels" in self.outputs:
            check_labels(self.top_k, config)
        if self.points != "all":
            output_points(self.points, self.outputs, config)

    def batch(self, device: str) -> int:
        return 16 if device == "cuda" else 4

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        raise NotImplementedError("One item of latents is one window: there is nothing to find out.")

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema(
            [pa.field("latents", pa.fixed_shape_tensor(pa.float32(), [config.num_latents, config.d_latents]))]
        )

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        kind = config.architectures[0]
        if kind == _MASKED:
            count = len(_positions(self.positions, config))
            return pa.schema(
                [
                    column(
                        "positions", pa.fixed_shape_tensor(pa.int32(), [count]), "which tokens, from 0, [CLS]"
                    ),
                    column(
                        "tokens",
                        pa.fixed_shape_tensor(pa.int32(), [count, self.top_k]),
                        "of each position, the likeliest ids first; a byte is its id less 6",
                    ),
                    column(
                        "scores",
                        pa.fixed_shape_tensor(pa.float32(), [count, self.top_k]),
                        "their probabilities, of 1 over all ids",
                    ),
                ]
            )
        if kind in _LABELS_ONLY:
            return pa.schema(LABELS)
        labels = LABELS if "labels" in self.outputs else ()
        return pa.schema([*tensor_fields(self.points, self.outputs, config), *labels])

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        yield {"latents": read_latents(files["latents"], (config.num_latents, config.d_latents))}

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        kind = config.architectures[0]
        if kind == multimodal.ARCHITECTURE:
            return chunk_of(self.points, self.outputs, config, batch, budget)
        if kind in _LABELS_ONLY:
            return 1
        # A point holds a row of scores for each of 8 heads, about four rows of its query's width, and its logits.
        point = 8 * config.num_latents + 4 * config.d_model + 2 * config.vocab_size
        return max(1, min(len(_positions(self.positions, config)), budget // (4 * batch * point)))

    def predict(self, model: Any, batch: Mapping[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
        import torch

        config, kind = model.config, model.config.architectures[0]
        plain = getattr(model, "model", model)  # a folded model is given float32, and rounds for itself
        with torch.inference_mode():
            latents = torch.from_numpy(batch["latents"]).to(model.device).to(plain.dtype)  # B, L, D
            if kind in _LABELS_ONLY:
                return most_likely(model.decode(latents), self.top_k, config)
            if kind == _MASKED:
                points = torch.from_numpy(_positions(self.positions, config)).to(model.device)  # M
                logits = model.decode(latents, points, chunk)  # B, M, vocabulary
                scores, tokens = logits.float().softmax(-1).topk(self.top_k)  # B, M, K
                return {"tokens": tokens.int().cpu().numpy(), "scores": scores.cpu().numpy()}
            tensors, labels = decode_points(model, latents, self.points, self.outputs, self.top_k, chunk)
            return {name: tensor.cpu().numpy() for name, tensor in tensors.items()} | labels

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        rows = windows.num_rows
        if config.architectures[0] == _MASKED:
            positions = _positions(self.positions, config).astype(np.int32)
            every = np.broadcast_to(positions, (rows, len(positions)))
            return {"positions": pack(every)} | {name: pack(found) for name, found in predictions.items()}
        columns = {name: pack(predictions[name]) for name in ("video", "audio") if name in predictions}
        if config.architectures[0] == multimodal.ARCHITECTURE:
            columns |= {n: pack(i) for n, i in indices(self.points, self.outputs, rows, config).items()}
        if "labels" in predictions:
            columns |= named(predictions["labels"], predictions["scores"], self.threshold, config)
        return columns


def read_latents(file: BinaryIO, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """An .npy of floats of that shape. Raises LatentsError; what its header says is checked before it is believed."""
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        found, fortran, dtype = formats[version](file)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError, TokenError) as error:
        raise LatentsError(
            f"expected latents as an .npy file; got none ({error}); write them with numpy.save, "
            "or give a table's column"
        ) from error
    if found != shape or dtype.kind != "f":
        raise LatentsError(
            f"expected latents of shape {shape}, floating point; got {found} of {dtype}; "
            "give those that this checkpoint made"
        )
    data = file.read(shape[0] * shape[1] * dtype.itemsize)
    if len(data) < shape[0] * shape[1] * dtype.itemsize:
        raise LatentsError(
            f"truncated: expected {shape[0] * shape[1] * dtype.itemsize} bytes of latents; got {len(data)}; "
            "fetch the file again"
        )
    latents = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float32)
    if not np.isfinite(latents).all():
        raise LatentsError("expected finite latents; got NaN or infinity; encode the item again")
    return latents


def _positions(positions: tuple[int, ...] | None, config: PerceiverConfig) -> npt.NDArray[np.int64]:
    return np.arange(config.max_position_embeddings) if positions is None else np.array(positions, np.int64)


def _check_positions(positions: tuple[int, ...] | None, top_k: int, config: PerceiverConfig) -> None:
    last = config.max_position_embeddings - 1
    if positions is not None and not (positions and all(0 <= one <= last for one in positions)):
        raise ValueError(f"positions must be from 0 to {last}, and at least one; got {list(positions)}.")
    if top_k > config.vocab_size:
        raise ValueError(
            f"top_k is {top_k}, but the checkpoint has {config.vocab_size} tokens: set it to at most that."
        )
