"""multimodal-autoencoding: a video and its sound through the latents and back, with class labels beside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from perceiver_core.tiles import MIN_OVERLAP
from pipelines import multimodal
from pipelines.blending import blend
from pipelines.contents import VIDEO, Content
from pipelines.describing import column, file_column, meaning, option
from pipelines.labels import LABELS, check_labels, check_options, named
from pipelines.limits import Limits
from pipelines.media.audio import Channel
from pipelines.mp4 import mp4_name
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
from pipelines.tensors import Format, pack, unpack

if TYPE_CHECKING:
    from pipelines.assembly import Assembly


@dataclass(frozen=True)
class MultimodalAutoencoding:
    """Reconstruct video and sound from the latents, and name the most likely classes."""

    name: ClassVar[str] = "multimodal-autoencoding"
    architectures: ClassVar[tuple[str, ...]] = (multimodal.ARCHITECTURE,)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((VIDEO,),)
    probes: ClassVar[bool] = True

    stream: int | None = option(
        None, "the video stream's index in its container; none: the first flagged default"
    )
    audio: Channel = option("first", "the first channel, as published, or the channels' mean")
    top_k: int = option(5, "how many labels a window gets at most")
    video: Literal["tensors", "mp4", "both"] = option(
        "tensors", "in the table, or one MP4 an item with its sound"
    )
    outputs: tuple[Output, ...] = option(OUTPUTS, "what is decoded; the rest is not computed")
    points: Chosen = option("all", f"which pixels: {CHOICES}")
    overlap: int = option(0, "frames that neighbouring windows share, blended from the one to the other")
    fit: multimodal.Fit = option(
        "crop",
        "the centre square, as published; the whole frame between black bars; or every pixel, in overlapping tiles: "
        "a window each, which tile_* and picture_* place in the frame; an MP4 has whole frames",
    )
    tile_overlap: int = option(
        MIN_OVERLAP, "with fit: tile, pixels that tiles share at least; an MP4 is blended there"
    )

    def __post_init__(self) -> None:
        check_options(self.top_k, 0)
        check_outputs(self.outputs)
        whole = self.points == "all" and {"video", "audio"} <= {*self.outputs}
        if self.mp4s and not whole:
            raise ValueError(
                f"video: {self.video} needs points: all, and video and audio among the outputs, for an MP4 is whole "
                "frames with their sound. Set options.video to tensors, or leave points and outputs out."
            )
        if self.overlap and self.points != "all":
            raise ValueError(
                "overlap blends whole windows: it needs points: all. Leave one of the two options out."
            )
        if self.fit == "tile" and self.overlap:
            raise ValueError(
                "overlap has windows share frames, which fit: tile does not blend: its tiles share pixels, as many as "
                "tile_overlap says. Leave overlap out, or set options.fit to crop or letterbox."
            )
        if self.fit == "tile" and self.outputs == ("audio",):
            raise ValueError(
                "fit: tile cuts pictures, and sound has none: it needs video or labels among the outputs. Leave one of "
                "the two options out."
            )

    @property
    def preview(self) -> tuple[str, ...]:
        there = [name for name in ("labels", "video_psnr", "audio_psnr") if self._has(name)]
        return ("window", "start_time", "frames", *there)

    @property
    def reconstructs(self) -> bool:
        return self.points == "all" and {*self.outputs} == {*OUTPUTS}

    @property
    def format(self) -> Format:
        return "parquet" if self.staged else "arrow"  # Arrow's layout is for tensors, Parquet's for queries

    @property
    def assembly(self) -> "Assembly | None":
        if not self.mp4s:
            return None
        from pipelines.assembly import Assembly
        from pipelines.videos import write_videos

        return Assembly("video", write_videos, whole_items=True)

    @property
    def mp4s(self) -> bool:
        return self.video != "tensors"

    @property
    def staged(self) -> bool:
        return self.video == "mp4" or self.outputs == ("labels",)

    def check(self, config: PerceiverConfig) -> None:
        if "labels" in self.outputs:
            check_labels(self.top_k, config)
        shape = multimodal.window_shape(config, self.overlap)
        least = min(shape.height, shape.width)
        if self.fit == "tile" and not 0 <= self.tile_overlap < least:
            raise ValueError(
                f"tile_overlap must be from 0 to {least - 1}, less than a tile's side: the checkpoint's tiles are "
                f"{shape.height} x {shape.width}; got {self.tile_overlap}."
            )
        if self.points != "all":
            output_points(self.points, self.outputs, config)

    def batch(self, device: str) -> int:
        return 16 if device == "cuda" else 4

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        if self.fit == "tile":
            return multimodal.probe_tiles(files["video"], self.stream, config, limits, self.tile_overlap)
        return multimodal.probe_video(files["video"], self.stream, config, limits, self.overlap)

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        return multimodal.input_schema(config, self.fit, context=self.overlap > 0)

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        columns = [
            *multimodal.WINDOW,
            *multimodal.where(self.fit),
            *tensor_fields(self.points, self.outputs, config),
            *(LABELS if self._has("labels") else ()),
            *(column(name, pa.float32(), _PSNR) for name in ("video_psnr", "audio_psnr") if self._has(name)),
            *([_MP4] if self.mp4s else []),
        ]
        return pa.schema([_of_tiles(field) for field in columns] if self.fit == "tile" else columns)

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        shape = multimodal.window_shape(config, self.overlap)
        media = (files["video"], info, first, stop, self.audio, shape, limits)
        if self.fit == "tile":
            yield from multimodal.tile_windows(*media, self.tile_overlap)
        else:
            yield from multimodal.video_windows(*media, self.fit, context=self.overlap > 0)

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        return chunk_of(self.points, self.outputs, config, batch, budget)

    def predict(self, model: Any, batch: Mapping[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            video, audio, latents = multimodal.encode(model, batch)
            tensors, labels = decode_points(model, latents, self.points, self.outputs, self.top_k, chunk)
            found = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
            if not self.overlap:  # else what is compared are blends, in postprocess
                found |= self._psnrs(batch, tensors, {"video": video, "audio": audio})
        return found | labels

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        found = {**predictions}
        if self.overlap:
            found |= self._blended(windows, found, config)
        sounding = np.asarray(windows["samples"]) > 0  # no sound: zeros went in, nulls come out
        if self.fit == "tile":  # every tile hears it, and has its own idea of it: one is told
            sounding &= (np.asarray(windows["tile_top"]) == 0) & (np.asarray(windows["tile_left"]) == 0)
        columns: dict[str, pa.Array] = {}
        if self.mp4s:
            items = zip(windows["uri"].to_pylist(), windows["item_id"].to_pylist(), strict=True)
            columns["mp4"] = pa.array([mp4_name(uri, item_id) for uri, item_id in items], pa.string())
        for name, points in indices(self.points, self.outputs, windows.num_rows, config).items():
            columns[name] = pack(points)
        if "video" in found:
            columns["video"] = pack(found["video"])
        if "audio" in found:
            columns["audio"] = pack(found["audio"][sounding], sounding)
        if "video_psnr" in found:
            columns["video_psnr"] = pa.array(found["video_psnr"], pa.float32())
        if "audio_psnr" in found:
            columns["audio_psnr"] = pa.array(found["audio_psnr"], pa.float32(), mask=~sounding)
        if "labels" in found:
            columns |= named(found["labels"], found["scores"], 0, config)
        return columns

    def _has(self, column: str) -> bool:
        """Whether the rows have labels, or what tells how near the output is: only where all of it is decoded."""
        if column == "labels":
            return column in self.outputs
        return self.points == "all" and column.removesuffix("_psnr") in self.outputs

    def _psnrs(
        self, batch: Mapping[str, np.ndarray], found: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """How near tensors that were found are to those given, for each row of the batch."""
        import torch

        device = given["video"].device
        psnrs = {}
        if self._has("video_psnr"):
            error = (found["video"].float() - given["video"].float()).div(255).square()  # B, T, H, W, 3
            if self.fit != "crop":
                shown = _shown(batch, *error.shape[2:4]).to(device)  # B, H, W
                error = (error.mean(4) * shown[:, None]).sum((2, 3)) / shown.sum((1, 2))[:, None]  # B, T
            else:
                error = error.mean((2, 3, 4))  # B, T
            psnrs["video_psnr"] = _psnr(error, torch.tensor(batch["frames"], device=device))
        if self._has("audio_psnr"):
            error = (found["audio"] - given["audio"]).square()  # B, S
            psnrs["audio_psnr"] = _psnr(error, torch.tensor(batch["samples"], device=device))
        return psnrs

    def _blended(
        self, windows: pa.Table, found: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, np.ndarray]:
        """A shard's video and audio, blended where windows overlap, and how near these are to the source."""
        import torch

        shape = multimodal.window_shape(config, self.overlap)
        which = list(zip(windows["item_id"].to_pylist(), windows["window"].to_pylist(), strict=True))
        blended: dict[str, np.ndarray] = {}
        for name, steps in (("video", self.overlap), ("audio", self.overlap * shape.samples_per_frame)):
            if name in found:
                blended[name] = found[name]
                blend(blended[name], which, steps)
        types = self.input_schema(config)
        every: dict[str, list[np.ndarray]] = {}
        for row in range(windows.num_rows):  # one by one: a shard's squared errors are many times its pixels
            one = windows.slice(row, 1)
            batch = {
                field.name: one[field.name].to_numpy()
                for field in types
                if field.name not in ("video", "audio")
            }
            given = {
                name: torch.from_numpy(unpack(one[name], types.field(name).type).copy())
                for name in ("video", "audio")
            }
            mine = {name: torch.from_numpy(values[row : row + 1]) for name, values in blended.items()}
            for name, value in self._psnrs(batch, mine, given).items():
                every.setdefault(name, []).append(value)
        return blended | {name: np.concatenate(values) for name, values in every.items()}


#: Where the item's MP4 is, relative to the output. An item with a quarantined span gets none: a published table has
#: null there; rows with tensors were committed before that was known, and name a file that is not there.
_MP4 = file_column("mp4", "the item's video, relative to the output; none if one of its windows failed")
_PSNR = "how near it is to what went in: peak signal-to-noise ratio in dB"
_FIRST_ONLY = "; null in all tiles of a time but the first, the one at 0, 0"
#: What columns mean beyond that where windows are tiles.
_TILED = {
    "window": ": all tiles of a time, in rows, then the next time's",
    "audio": _FIRST_ONLY,
    "audio_psnr": _FIRST_ONLY,
}


def _of_tiles(field: pa.Field) -> pa.Field:
    """A column, as it is where windows are tiles."""
    more = _TILED.get(field.name)
    return column(field.name, field.type, meaning(field) + more) if more else field


def _shown(batch: Mapping[str, np.ndarray], height: int, width: int) -> Any:
    """Which pixels of a letterboxed frame or a tile are picture, (B, H, W) of 0 and 1."""
    import torch

    top, left, rows, columns = (torch.tensor(batch[field.name])[:, None] for field in multimodal.BOX)
    y, x = torch.arange(height), torch.arange(width)
    tall = (y >= top) & (y < top + rows)  # B, H
    wide = (x >= left) & (x < left + columns)  # B, W
    return (tall[:, :, None] & wide[:, None]).float()


def _psnr(squared_error: Any, real: Any) -> np.ndarray:
    """PSNR in dB for a peak of 1, over the first `real` (B,) steps of a squared error (B, steps)."""
    import torch

    steps = torch.arange(squared_error.shape[1], device=squared_error.device)
    kept = squared_error.double() * (steps < real[:, None])  # B, steps
    return (-10 * torch.log10(kept.sum(1) / real.clamp(min=1))).float().cpu().numpy()
