"""multimodal-autoencoding: a video and its sound through the latents and back, with class labels beside."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.contents import VIDEO, Content
from pipelines.limits import Limits
from pipelines.media.info import MediaInfo, probe
from pipelines.media.windows import WindowShape, count_windows, read_windows
from pipelines.mp4 import mp4_name
from pipelines.tensors import Format, pack

if TYPE_CHECKING:
    from pipelines.assembly import Assembly

FPS = 25  # as published
_AUDIO_CHANNELS = 385  # of the audio query's Fourier features, the widest but for the label's


@dataclass(frozen=True)
class MultimodalAutoencoding:
    """Reconstruct video and sound from the latents, and name the most likely classes."""

    name: ClassVar[str] = "multimodal-autoencoding"
    architectures: ClassVar[tuple[str, ...]] = ("PerceiverForMultimodalAutoencoding",)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((VIDEO,),)
    probes: ClassVar[bool] = True
    preview: ClassVar[tuple[str, ...]] = (
        "window",
        "start_time",
        "frames",
        "labels",
        "video_psnr",
        "audio_psnr",
    )
    reconstructs: ClassVar[bool] = True

    stream: int | None = None  #: the video stream's index in its container; none: the first flagged default
    audio: Literal["first", "mix"] = "first"  #: the first channel, as published, or the channels' mean
    top_k: int = 5  #: how many labels a window gets
    video: Literal["tensors", "mp4", "both"] = "tensors"  #: in the table, or one MP4 an item with its sound

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}.")

    @property
    def format(self) -> Format:
        return "parquet" if self.staged else "arrow"  # Arrow's layout is for tensors, Parquet's for queries

    @property
    def assembly(self) -> "Assembly | None":
        if self.video == "tensors":
            return None
        from pipelines.assembly import Assembly
        from pipelines.videos import write_videos

        return Assembly("video", write_videos)

    @property
    def staged(self) -> bool:
        return self.video == "mp4"

    def check(self, config: PerceiverConfig) -> None:
        if self.top_k > config.num_labels:
            raise ValueError(
                f"top_k is {self.top_k}, but the checkpoint has {config.num_labels} labels: "
                f"set options.top_k to at most {config.num_labels}."
            )

    def batch(self, device: str) -> int:
        return 16 if device == "cuda" else 4

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        info = probe(files["video"], stream=self.stream, fps=FPS)
        return count_windows(info, _shape(config)), json.dumps(asdict(info))

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        shape = _shape(config)
        return pa.schema(
            [
                *_WINDOW,
                pa.field(
                    "video", pa.fixed_shape_tensor(pa.uint8(), [shape.frames, shape.height, shape.width, 3])
                ),
                pa.field("audio", pa.fixed_shape_tensor(pa.float32(), [shape.samples])),
            ]
        )

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema(
            [
                *self.input_schema(config),
                pa.field("labels", pa.list_(pa.string())),
                pa.field("scores", pa.list_(pa.float32())),
                pa.field("video_psnr", pa.float32()),
                pa.field("audio_psnr", pa.float32()),
                *([_MP4] if self.video != "tensors" else []),
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
        assert info is not None
        media = MediaInfo(**json.loads(info))
        for window in read_windows(files["video"], media, _shape(config), first, stop, audio=self.audio):
            yield {
                "window": window.index,
                "start_time": window.start_time,
                "frames": window.frames,
                "samples": window.samples,
                "video": window.video,
                "audio": window.audio,
            }

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        _, frames, height, width = config.output_shape
        points = frames * height * width + config.num_audio_patches + 1
        query = max(_AUDIO_CHANNELS, config._label_trainable_num_channels) + 2
        # A point holds a row of scores and, at once, about four rows of its query's width, in float32.
        most = max(1, budget // (4 * batch * (config.num_latents + 4 * query)))
        return -(-points // -(-points // most))  # equal calls, so that the last one is padded least

    def predict(self, model: Any, batch: Mapping[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
        import torch

        from perceiver_core.output_points import OutputPoints

        device = model.device
        video = torch.from_numpy(batch["video"]).to(device)  # B, T, H, W, 3
        audio = torch.from_numpy(batch["audio"]).to(device)  # B, S
        with torch.inference_mode():
            latents = model.encode(
                {
                    "image": video.permute(0, 1, 4, 2, 3).float() / 255,  # B, T, 3, H, W
                    "audio": audio[..., None],  # B, S, 1
                }
            )  # B, L, D
            decoded = model.decode(latents, OutputPoints.all(model.config), chunk_size=chunk)
            pixels = decoded["image"].float().clamp(0, 1).mul(255).round().to(torch.uint8)  # B, T*H*W, 3
            pixels = pixels.view(video.shape)  # B, T, H, W, 3
            sound = decoded["audio"].float()  # B, S
            scores, labels = decoded["label"].float().softmax(-1).topk(self.top_k)  # B, K
            frames = torch.from_numpy(batch["frames"]).to(device)
            samples = torch.from_numpy(batch["samples"]).to(device)
            video_error = (pixels.float() - video.float()).div(255).square().mean((2, 3, 4))  # B, T
            return {
                "video": pixels.cpu().numpy(),
                "audio": sound.cpu().numpy(),
                "labels": labels.cpu().numpy(),
                "scores": scores.cpu().numpy(),
                "video_psnr": _psnr(video_error, frames),
                "audio_psnr": _psnr((sound - audio).square(), samples),
            }

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        sounding = np.asarray(windows["samples"]) > 0  # no sound: zeros went in, nulls come out
        names = np.array([config.id2label[i] for i in range(config.num_labels)])
        named = {}
        if self.video != "tensors":
            items = zip(windows["uri"].to_pylist(), windows["item_id"].to_pylist(), strict=True)
            named["mp4"] = pa.array([mp4_name(uri, item_id) for uri, item_id in items], pa.string())
        return named | {
            "video": pack(predictions["video"]),
            "audio": pack(predictions["audio"][sounding], sounding),
            "labels": pa.array(names[predictions["labels"]].tolist(), pa.list_(pa.string())),
            "scores": pa.array(predictions["scores"].tolist(), pa.list_(pa.float32())),
            "video_psnr": pa.array(predictions["video_psnr"], pa.float32()),
            "audio_psnr": pa.array(predictions["audio_psnr"], pa.float32(), mask=~sounding),
        }


#: What every window of a video says of itself; the last one of an item is padded, and counts what is real.
_WINDOW = (
    pa.field("window", pa.int64()),
    pa.field("start_time", pa.float64()),  # seconds since the item's first frame
    pa.field("frames", pa.int32()),
    pa.field("samples", pa.int32()),
)

#: Where the item's MP4 is, relative to the output. An item with a quarantined span gets none: a published table has
#: null there; rows with tensors were committed before that was known, and name a file that is not there.
_MP4 = pa.field("mp4", pa.string())


def _shape(config: PerceiverConfig) -> WindowShape:
    _, _, height, width = config.output_shape
    return WindowShape(
        frames=config.num_frames,
        height=height,
        width=width,
        samples=config.num_frames * config.audio_samples_per_frame,
        fps=FPS,
    )


def _psnr(squared_error: Any, real: Any) -> np.ndarray:
    """PSNR in dB for a peak of 1, over the first `real` (B,) steps of a squared error (B, steps)."""
    import torch

    steps = torch.arange(squared_error.shape[1], device=squared_error.device)
    kept = squared_error.double() * (steps < real[:, None])  # B, steps
    return (-10 * torch.log10(kept.sum(1) / real.clamp(min=1))).float().cpu().numpy()
