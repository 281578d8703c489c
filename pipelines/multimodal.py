"""What the tasks of the multimodal model share: a video's windows in, its latents out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.describing import column
from pipelines.limits import Limits
from pipelines.media.audio import Channel
from pipelines.media.info import MediaInfo, probe
from pipelines.media.windows import Window, WindowShape, count_windows, read_windows, shown_in
from pipelines.tiling import TILE, Tile, cut, tiles_of

ARCHITECTURE = "PerceiverForMultimodalAutoencoding"
FPS = 25  # as published
#: The centre, as published, the whole picture between bars, or every pixel of it in tiles.
Fit = Literal["crop", "letterbox", "tile"]

#: What every window of a video says of itself; the last one of an item is padded, and counts what is real.
WINDOW = (
    column("window", pa.int64(), "which of the video's windows"),
    column("start_time", pa.float64(), "seconds from the video's first frame to the window's"),
    column("frames", pa.int32(), "how many are the video's; the rest of the last window repeats its last"),
    column("samples", pa.int32(), "how many are the video's; the rest of the window is silence"),
)

#: Where in a window's frames the picture is, in pixels; the rest are black bars, or in tiles its border, repeated.
BOX = tuple(
    column(
        f"picture_{side}",
        pa.int32(),
        f"{side} of the picture in the window's frames, in pixels; the rest is bars or padding",
    )
    for side in ("top", "left", "height", "width")
)


def where(fit: Fit) -> tuple[pa.Field, ...]:
    """The columns that say which part of the source's frame is where in a window's."""
    return {"crop": (), "letterbox": BOX, "tile": (*TILE, *BOX)}[fit]


def window_shape(config: PerceiverConfig, overlap: int = 0) -> WindowShape:
    _, _, height, width = config.output_shape
    return WindowShape(
        frames=config.num_frames,
        height=height,
        width=width,
        samples=config.num_frames * config.audio_samples_per_frame,
        fps=FPS,
        overlap=overlap,
    )


def input_schema(config: PerceiverConfig, fit: Fit = "crop", context: bool = False) -> pa.Schema:
    shape = window_shape(config)
    size = [shape.frames, shape.height, shape.width, 3]
    return pa.schema(
        [
            *WINDOW,
            *where(fit),
            *([pa.field("context", pa.bool_())] if context else []),  # stages.CONTEXT
            pa.field("video", pa.fixed_shape_tensor(pa.uint8(), size)),
            pa.field("audio", pa.fixed_shape_tensor(pa.float32(), [shape.samples])),
        ]
    )


def probe_video(
    file: BinaryIO, stream: int | None, config: PerceiverConfig, limits: Limits, overlap: int = 0
) -> tuple[int, str]:
    """How many windows a video has, and what reading them takes, as JSON."""
    info = probe(file, stream=stream, fps=FPS, limits=limits)
    return count_windows(info, window_shape(config, overlap)), json.dumps(asdict(info))


def video_windows(
    file: BinaryIO,
    info: str | None,
    first: int,
    stop: int,
    audio: Channel,
    shape: WindowShape,
    limits: Limits,
    fit: Literal["crop", "letterbox"] = "crop",
    context: bool = False,
) -> Iterator[dict[str, Any]]:
    """The windows [first, stop) of a video that was probed, by the columns of input_schema.

    With `context` the windows before and after are there, too: what windows share is a blend of both.
    """
    assert info is not None
    media = MediaInfo(**json.loads(info))
    box = zip((field.name for field in BOX), shown_in(media, shape), strict=True)
    more: dict[str, Any] = dict(box) if fit == "letterbox" else {}
    begin, end = (max(first - 1, 0), min(stop + 1, count_windows(media, shape))) if context else (first, stop)
    for window in read_windows(file, media, shape, begin, end, audio=audio, fit=fit, limits=limits):
        if context:
            more["context"] = not first <= window.index < stop
        yield more | _columns(window) | {"video": window.video}


def probe_tiles(
    file: BinaryIO, stream: int | None, config: PerceiverConfig, limits: Limits, overlap: int
) -> tuple[int, str]:
    """How many tiles a video's windows have in all, and what reading them takes, as JSON."""
    info = probe(file, stream=stream, fps=FPS, limits=limits)
    shape = window_shape(config)
    return count_windows(info, shape) * len(_tiles(info, shape, overlap)), json.dumps(asdict(info))


def tile_windows(
    file: BinaryIO,
    info: str | None,
    first: int,
    stop: int,
    audio: Channel,
    shape: WindowShape,
    limits: Limits,
    overlap: int,
) -> Iterator[dict[str, Any]]:
    """The tiles [first, stop) of a video that was probed, each a window: all tiles of a time, then the next time's.

    Frames are as large as the source's; those of one time are in memory at once. The sound is with every tile.
    """
    assert info is not None
    media = MediaInfo(**json.loads(info))
    tiles = _tiles(media, shape, overlap)
    size = shape.height, shape.width
    own = replace(
        shape, height=media.height, width=media.width
    )  # a letterbox of the frame's own size has no bars
    begin, end = first // len(tiles), -(-stop // len(tiles))
    for window in read_windows(file, media, own, begin, end, audio=audio, fit="letterbox", limits=limits):
        before = window.index * len(tiles)
        for number in range(max(first, before), min(stop, before + len(tiles))):
            tile = tiles[number - before]
            place = (tile.top, tile.left, media.height, media.width, *tile.box)
            yield {
                **_columns(window),
                "window": number,
                **{field.name: value for field, value in zip(where("tile"), place, strict=True)},
                "video": cut(window.video, tile, size),
            }


def _tiles(media: MediaInfo, shape: WindowShape, overlap: int) -> list[Tile]:
    return tiles_of((media.height, media.width), (shape.height, shape.width), overlap)


def _columns(window: Window) -> dict[str, Any]:
    """All of a window but its pixels, by column."""
    return {
        "window": window.index,
        "start_time": window.start_time,
        "frames": window.frames,
        "samples": window.samples,
        "audio": window.audio,
    }


def encode(model: Any, batch: Mapping[str, np.ndarray]) -> tuple[Any, Any, Any]:
    """A batch's video (B, T, H, W, 3) uint8 and audio (B, S) on the model's device, and their latents (B, L, D)."""
    import torch

    video = torch.from_numpy(batch["video"]).to(model.device)  # B, T, H, W, 3
    audio = torch.from_numpy(batch["audio"]).to(model.device)  # B, S
    latents = model.encode(
        {
            "image": video.permute(0, 1, 4, 2, 3).float() / 255,  # B, T, 3, H, W
            "audio": audio[..., None],  # B, S, 1
        }
    )  # B, L, D
    return video, audio, latents
