"""image-classification: what is in an image, by name; learned, Fourier and convolutional checkpoints."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.contents import IMAGE, Content
from pipelines.describing import option
from pipelines.labels import LABELS, check_labels, check_options, most_likely, named
from pipelines.limits import Limits
from pipelines.media.images import decode_image
from pipelines.media.resize import Fit
from pipelines.pictures import ARCHITECTURES, SIZE, fitted, normalised, picture_size
from pipelines.tensors import Format


@dataclass(frozen=True)
class ImageClassification:
    """Name the most likely classes of an image."""

    name: ClassVar[str] = "image-classification"
    architectures: ClassVar[tuple[str, ...]] = ARCHITECTURES
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((IMAGE,),)
    probes: ClassVar[bool] = False
    preview: ClassVar[tuple[str, ...]] = ("width", "height", "labels", "scores")
    reconstructs: ClassVar[bool] = False

    top_k: int = option(5, "how many labels an image gets at most")
    threshold: float = option(0.0, "labels with a lower score are left out")
    fit: Fit = option("crop", "the centre, as published, or all of the picture between black bars")
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
        return 32 if device == "cuda" else 4

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        return 1, ""

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        height, width = picture_size(config)
        return pa.schema([*SIZE, pa.field("image", pa.fixed_shape_tensor(pa.uint8(), [height, width, 3]))])

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema([*SIZE, *LABELS])

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        image = decode_image(files["image"], limits)  # H, W, 3
        height, width = image.shape[:2]
        yield {
            "height": height,
            "width": width,
            "image": fitted(image, picture_size(config), self.fit),
        }

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        return 1

    def predict(self, model: Any, batch: Mapping[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode():
            latents = model.encode(normalised(batch["image"], model))  # B, L, D
            return most_likely(model.decode(latents), self.top_k, model.config)

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        return named(predictions["labels"], predictions["scores"], self.threshold, config)
