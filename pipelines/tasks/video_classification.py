"""video-classification: what happens in a video, window by window; encoded, and one query decoded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines import multimodal
from pipelines.contents import VIDEO, Content
from pipelines.describing import option
from pipelines.labels import LABELS, check_labels, check_options, most_likely, named
from pipelines.limits import Limits
from pipelines.media.audio import Channel
from pipelines.tensors import Format


@dataclass(frozen=True)
class VideoClassification:
    """Name the most likely classes of each window of a video; no pixel is decoded, and none kept."""

    name: ClassVar[str] = "video-classification"
    architectures: ClassVar[tuple[str, ...]] = (multimodal.ARCHITECTURE,)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((VIDEO,),)
    probes: ClassVar[bool] = True
    preview: ClassVar[tuple[str, ...]] = ("window", "start_time", "labels", "scores")
    reconstructs: ClassVar[bool] = False

    stream: int | None = option(
        None, "the video stream's index in its container; none: the first flagged default"
    )
    audio: Channel = option("first", "the first channel, as published, or the channels' mean")
    top_k: int = option(5, "how many labels a window gets at most")
    threshold: float = option(0.0, "labels with a lower score are left out")
    csv: bool = option(False, "labels.csv in the output's folder, to look through")

    def __post_init__(self) -> None:
        check_options(self.top_k, self.threshold)

    @property
    def format(self) -> Format:
        return "parquet"

    @property
    def assembly(self) -> None:
        return None

    @property
    def staged(self) -> bool:
        return True

    def check(self, config: PerceiverConfig) -> None:
        check_labels(self.top_k, config)

    def batch(self, device: str) -> int:
        return 16 if device == "cuda" else 4

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        return multimodal.probe_video(files["video"], self.stream, config, limits)

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        return multimodal.input_schema(config)

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema([*multimodal.WINDOW, *LABELS])

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        shape = multimodal.window_shape(config)
        yield from multimodal.video_windows(files["video"], info, first, stop, self.audio, shape, limits)

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        return 1

    def predict(self, model: Any, batch: Mapping[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
        import torch

        from perceiver_core.output_points import OutputPoints

        with torch.inference_mode():
            _, _, latents = multimodal.encode(model, batch)
            decoded = model.decode(latents, OutputPoints.labels_only())
            return most_likely(decoded["label"], self.top_k, model.config)

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        return named(predictions["labels"], predictions["scores"], self.threshold, config)
