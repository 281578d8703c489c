"""latents: what a model has understood of an item, before anything is decoded of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines import multimodal, pictures
from pipelines.contents import IMAGE, TEXT, VIDEO, Content
from pipelines.describing import column, option
from pipelines.limits import Limits
from pipelines.media.audio import Channel
from pipelines.media.images import decode_image
from pipelines.media.resize import Fit
from pipelines.tensors import Format, pack
from pipelines.texts import check_overlap, cut, most_bytes, padded, read_text, token_ids

_TEXT = ("PerceiverForMaskedLM", "PerceiverForSequenceClassification")


@dataclass(frozen=True)
class Latents:
    """Encode videos with their sound, images or texts, as the checkpoint has it; the task `decode` reads the rows."""

    name: ClassVar[str] = "latents"
    architectures: ClassVar[tuple[str, ...]] = (multimodal.ARCHITECTURE, *pictures.ARCHITECTURES, *_TEXT)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((VIDEO,), (IMAGE,), (TEXT,))
    probes: ClassVar[bool] = True
    preview: ClassVar[tuple[str, ...]] = ("window",)
    reconstructs: ClassVar[bool] = False

    dtype: Literal["float32", "float16"] = option("float32", "of the latents in the table")
    stream: int | None = option(
        None, "of videos, the video stream's index in its container; none: the first flagged default"
    )
    audio: Channel = option(
        "first", "of videos, the first audio channel, as published, or the channels' mean"
    )
    fit: Fit = option(
        "crop", "of videos and images, the centre, as published, or all of the picture between black bars"
    )
    overlap: int = option(
        0, "what neighbouring windows share, for the latents of both: frames of a video, bytes of a long text"
    )

    @property
    def format(self) -> Format:
        return "parquet"

    @property
    def assembly(self) -> None:
        return None

    @property
    def staged(self) -> bool:
        return False

    def contents_for(self, config: PerceiverConfig) -> tuple[tuple[Content, ...], ...]:
        """What this checkpoint is given."""
        return ((_content(config),),)

    def check(self, config: PerceiverConfig) -> None:
        content = _content(config)
        if content == VIDEO:
            multimodal.window_shape(config, self.overlap)
        elif content == TEXT:
            check_overlap(self.overlap, config)
        elif self.overlap:
            raise ValueError(
                f"overlap is of videos and texts; {config.architectures[0]} reads images. Leave it out."
            )

    def batch(self, device: str) -> int:
        return 16 if device == "cuda" else 4

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        if _content(config) == VIDEO:
            return multimodal.probe_video(files["video"], self.stream, config, limits, self.overlap)
        return 1, ""  # an image has one window, and a text is one span whatever it has

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        content = _content(config)
        if content == VIDEO:
            return multimodal.input_schema(config, self.fit)
        if content == IMAGE:
            size = [*pictures.picture_size(config), 3]
            return pa.schema([*pictures.SIZE, pa.field("image", pa.fixed_shape_tensor(pa.uint8(), size))])
        return pa.schema([*_SPAN, pa.field("ids", pa.large_list(pa.int16()))])

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        given = [
            field
            for field in self.input_schema(config)
            if field.name not in ("video", "audio", "image", "ids")
        ]
        type = pa.fixed_shape_tensor(
            pa.from_numpy_dtype(np.dtype(self.dtype)), [config.num_latents, config.d_latents]
        )
        meaning = "the window's latents (num_latents, d_latents)"
        return pa.schema([*given, column("latents", type, meaning)])

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        content = _content(config)
        if content == VIDEO:
            shape = multimodal.window_shape(config, self.overlap)
            yield from multimodal.video_windows(
                files["video"], info, first, stop, self.audio, shape, limits, fit=self.fit
            )
        elif content == IMAGE:
            image = decode_image(files["image"], limits)  # H, W, 3
            height, width = image.shape[:2]
            fitted = pictures.fitted(image, pictures.picture_size(config), self.fit)
            yield {"height": height, "width": width, "image": fitted}
        else:
            text = read_text(files["text"], limits)
            for index, window in enumerate(cut(text, most_bytes(config), self.overlap)):
                ids = token_ids(text[window.start : window.stop])
                yield {"window": index, "start": window.start, "end": window.stop, "ids": ids}

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        return 1  # nothing is decoded

    def predict(self, model: Any, batch: Mapping[str, Any], chunk: int) -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            if "video" in batch:
                _, _, latents = multimodal.encode(model, batch)
            elif "image" in batch:
                latents = model.encode(pictures.normalised(batch["image"], model))
            else:
                ids, mask = (
                    torch.from_numpy(array).to(model.device) for array in padded(batch["ids"])
                )  # B, N
                latents = model.encode(ids, mask)
            return {"latents": latents.float().cpu().numpy().astype(self.dtype)}  # B, L, D

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, Any], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        return {"latents": pack(predictions["latents"])}


_SPAN = (
    column("window", pa.int64(), "which of the text's windows"),
    column("start", pa.int64(), "the window's first byte in the text"),
    column("end", pa.int64(), "the byte after its last"),
)


def _content(config: PerceiverConfig) -> Content:
    """What the checkpoint reads."""
    architecture = config.architectures[0]
    if architecture == multimodal.ARCHITECTURE:
        return VIDEO
    return IMAGE if architecture in pictures.ARCHITECTURES else TEXT
