"""optical-flow: how far each pixel moves from one frame to another, of a video or a pair of images of any size."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.contents import PAIR, VIDEO, Content
from pipelines.describing import column, file_column, option
from pipelines.limits import Limits
from pipelines.media.container import MediaError
from pipelines.media.frames import FrameIndex, index_frames, read_frames
from pipelines.media.images import decode_image, image_size
from pipelines.media.resize import Image, resize
from pipelines.tensors import Format, ragged

if TYPE_CHECKING:
    from pipelines.assembly import Assembly

_COLOURS, _VECTOR = 2 * 3, 2 * 4  # bytes of a pixel of a pair, and of its flow
_POINT = 4 * (54 + 64 + 322)  # bytes of a pixel in the model: its patches, their convolution, its token
Kind = Literal["png", "flo"]
_HELD = 64  # frames that wait for their partners, at most


@dataclass(frozen=True)
class OpticalFlow:
    """Estimate the motion of each pixel between frames of a video, or between two images."""

    name: ClassVar[str] = "optical-flow"
    architectures: ClassVar[tuple[str, ...]] = ("PerceiverForOpticalFlow",)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((VIDEO,), PAIR)
    probes: ClassVar[bool] = True
    preview: ClassVar[tuple[str, ...]] = ("window", "start_time", "height", "width")
    reconstructs: ClassVar[bool] = False

    stream: int | None = option(
        None, "the video stream's index in its container; none: the first flagged default"
    )
    stride: int = option(1, "how many frames of a video lie from a pair's first frame to its second")
    every: int = option(1, "every how many frames of a video a pair begins")
    fit: Literal["tile", "resize"] = option(
        "tile",
        "every pixel, in overlapping tiles; or frames resized to one tile, and their flow back: cheap, coarse",
    )
    overlap: int = option(20, "pixels that tiles share at least; they are blended there")
    png: bool = option(False, "a PNG of each pair's flow in Middlebury's colours; the column png names it")
    png_motion: float | None = option(
        None, "the motion in pixels that has the full colour in a PNG; none: the longest of each pair"
    )
    flo: bool = option(
        False, "a .flo file of each pair, as the flow benchmarks have them; the column flo names it"
    )

    def __post_init__(self) -> None:
        if self.stride < 1 or self.every < 1:
            raise ValueError(
                f"stride and every must be at least 1 frame; got stride {self.stride} and every {self.every}."
            )
        if self.stride > _HELD * self.every:
            raise ValueError(
                f"stride must be at most {_HELD} times every, for so many frames wait for their partners; got stride "
                f"{self.stride} and every {self.every}."
            )
        if self.png_motion is not None and not self.png_motion > 0:
            raise ValueError(f"png_motion must be more than 0 pixels; got {self.png_motion}.")

    @property
    def format(self) -> Format:
        return "arrow"

    @property
    def assembly(self) -> "Assembly | None":
        kinds = self._kinds
        if not kinds:
            return None
        from pipelines.assembly import Assembly
        from pipelines.flows import FOLDER, write_flows

        return Assembly(FOLDER, partial(write_flows, kinds=kinds, longest=self.png_motion))

    @property
    def staged(self) -> bool:
        return False

    def check(self, config: PerceiverConfig) -> None:
        least = min(config.train_size)
        if not 0 <= self.overlap < least:
            raise ValueError(
                f"overlap must be from 0 to {least - 1}, less than a tile's side: the checkpoint's tiles are "
                f"{config.train_size[0]} x {config.train_size[1]}; got {self.overlap}."
            )

    def batch(self, device: str) -> int:
        return 8 if device == "cuda" else 2

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        if "video" not in files:
            height, width = image_size(files[PAIR[0].name], limits)
            return 1, self._info({"height": height, "width": width}, config)
        index = index_frames(files["video"], limits, stream=self.stream)
        if index.frames <= self.stride:
            raise MediaError(
                f"expected a video of {self.stride + 1} frames or more, for a pair of stride {self.stride}; got "
                f"{index.frames}; leave it out of the input"
            )
        pairs = (index.frames - 1 - self.stride) // self.every + 1
        return pairs, self._info(asdict(index), config)

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema(
            [*_PAIR, pa.field("frames", pa.large_list(pa.uint8()))]
        )  # 2 * H * W * 3, or of a tile

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        names: dict[Kind, str] = {
            "png": "the picture of the pair's flow, relative to the output",
            "flo": "the pair's .flo file, relative to the output",
        }
        return pa.schema(
            [
                *_PAIR,
                ragged(_FLOW, "height", "width", 2),
                *(file_column(kind, names[kind]) for kind in self._kinds),
            ]
        )

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        pairs: Iterator[tuple[int, float | None, Image, Image]]
        if "video" in files:
            assert info is not None
            known = json.loads(info)
            del known["window_bytes"]
            pairs = self._pairs(files["video"], FrameIndex(**known), first, stop, limits)
        else:
            pairs = iter([(0, None, *_two_images(files, limits))])
        for window, seconds, *images in pairs:
            height, width = images[0].shape[:2]
            sized = (
                [resize(image, *config.train_size) for image in images] if self.fit == "resize" else images
            )
            yield {
                "window": window,
                "start_time": seconds,
                "height": height,
                "width": width,
                "frames": np.stack(sized).reshape(-1),
            }

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        height, width = config.train_size
        return height * width * max(1, min(batch, budget // (height * width * _POINT)))

    def predict(self, model: Any, batch: Mapping[str, Any], chunk: int) -> dict[str, Any]:
        import torch

        from perceiver_core.flow import estimate_flows

        height, width = tile = tuple(model.config.train_size)
        sizes = list(zip(batch["height"].tolist(), batch["width"].tolist(), strict=True))
        shapes = [tile] * len(sizes) if self.fit == "resize" else sizes
        pairs = [
            torch.from_numpy(frames.reshape(2, *shape, 3).copy()).permute(0, 3, 1, 2)  # 2, 3, H, W
            for frames, shape in zip(batch["frames"], shapes, strict=True)
        ]
        tiles = max(1, chunk // (height * width))
        flows = estimate_flows(model, pairs, batch_size=tiles, min_overlap=self.overlap)  # [(H, W, 2)]
        if self.fit == "resize":
            flows = [_resized(flow, *size) for flow, size in zip(flows, sizes, strict=True)]
        return {"flow": [flow.cpu().numpy() for flow in flows]}

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, Any], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        from pipelines.flows import flow_name

        flows = predictions["flow"]
        ends = np.cumsum([0, *(flow.size for flow in flows)], dtype=np.int64)
        values = np.concatenate([np.empty(0, np.float32), *(flow.reshape(-1) for flow in flows)])
        columns = {"flow": pa.LargeListArray.from_arrays(ends, values)}
        rows = windows.select(["uri", "item_id", "window"]).to_pylist()
        for kind in self._kinds:
            columns[kind] = pa.array([flow_name(**row, kind=kind) for row in rows], pa.string())
        return columns

    @property
    def _kinds(self) -> list[Kind]:
        """The files that are made of every pair."""
        wanted: dict[Kind, bool] = {"png": self.png, "flo": self.flo}
        return [kind for kind in wanted if wanted[kind]]

    def _info(self, known: dict[str, Any], config: PerceiverConfig) -> str:
        """What a probe learnt, with what each window weighs."""
        height, width = known["height"], known["width"]
        rows, columns = config.train_size if self.fit == "resize" else (height, width)
        return json.dumps(known | {"window_bytes": rows * columns * _COLOURS + height * width * _VECTOR})

    def _pairs(
        self, file: BinaryIO, index: FrameIndex, first: int, stop: int, limits: Limits
    ) -> Iterator[tuple[int, float | None, Image, Image]]:
        """Number, seconds and frames of the pairs [first, stop) of a video."""
        firsts = range(first * self.every, stop * self.every, self.every)
        wanted = sorted({*firsts, *(number + self.stride for number in firsts)})
        waiting: dict[int, tuple[float, Image]] = {}
        for number, seconds, image in read_frames(file, index, wanted, limits):
            begun = waiting.pop(number - self.stride, None)
            if number in firsts:
                waiting[number] = seconds, image
            if begun is not None:
                yield (number - self.stride) // self.every, *begun, image


def _two_images(files: Mapping[str, BinaryIO], limits: Limits) -> tuple[Image, Image]:
    one, other = (decode_image(files[content.name], limits) for content in PAIR)
    if one.shape != other.shape:
        raise MediaError(
            f"expected two images of one size; got {one.shape[1]} x {one.shape[0]} and {other.shape[1]} x "
            f"{other.shape[0]}; resize one of them, or leave the pair out of the input"
        )
    return one, other


def _resized(flow: Any, height: int, width: int) -> Any:
    """Flow (h, w, 2) of resized frames as flow (H, W, 2) of the frames themselves, in their pixels."""
    import torch

    small = flow.shape[:2]
    channels = flow.permute(2, 0, 1)[None]  # 1, 2, h, w
    large = torch.nn.functional.interpolate(
        channels, (height, width), mode="bilinear", align_corners=False
    )  # 1, 2, H, W
    scale = flow.new_tensor([width / small[1], height / small[0]])
    return large[0].permute(1, 2, 0) * scale  # H, W, 2


_FLOW = column(
    "flow",
    pa.large_list(pa.float32()),
    "how far each pixel of the first frame has moved in the second, in pixels: by rows, dx to the right and dy down; "
    "reshape to (height, width, 2)",
)
_PAIR = (
    column("window", pa.int64(), "which of the video's pairs"),
    column(
        "start_time", pa.float64(), "of the first frame, in seconds since the video's first; null for images"
    ),
    column("height", pa.int32(), "of the frames, in pixels"),
    column("width", pa.int32(), "of the frames, in pixels"),
)
