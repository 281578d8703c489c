"""text-classification: what a text is, by name; a long one window by window."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Literal

import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.contents import TEXT, Content
from pipelines.describing import column, option
from pipelines.labels import LABELS, check_labels, check_options, most_likely, named
from pipelines.limits import Limits
from pipelines.tensors import Format
from pipelines.texts import TextError, check_overlap, cut, most_bytes, padded, read_text, token_ids


@dataclass(frozen=True)
class TextClassification:
    """Name the most likely classes of a UTF-8 text."""

    name: ClassVar[str] = "text-classification"
    architectures: ClassVar[tuple[str, ...]] = ("PerceiverForSequenceClassification",)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((TEXT,),)
    probes: ClassVar[bool] = False
    preview: ClassVar[tuple[str, ...]] = ("window", "bytes", "labels", "scores")
    reconstructs: ClassVar[bool] = False

    top_k: int = option(5, "how many labels a window gets at most")
    threshold: float = option(0.0, "labels with a lower score are left out")
    long: Literal["windows", "truncate", "error"] = option(
        "windows",
        "a text longer than the model reads at once: a row for each window, one for its beginning, or quarantine",
    )
    overlap: int = option(256, "bytes that the windows of a long text share")
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
        check_overlap(self.overlap, config)

    def batch(self, device: str) -> int:
        return 64 if device == "cuda" else 8

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        raise NotImplementedError(
            "A text is one unit at planning; what windows it has is known once it is read."
        )

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema([*_WINDOW, pa.field("ids", pa.large_list(pa.int16()))])

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        return pa.schema([*_WINDOW, *LABELS])

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        text, most = read_text(files["text"], limits), most_bytes(config)
        if len(text) > most and self.long == "error":
            raise TextError(
                f"expected a text of at most {most} bytes, as many as the checkpoint reads at once; got {len(text)}; "
                "cut it, or set options.long to windows or truncate"
            )
        windows = cut(text, most, self.overlap)
        for index, window in enumerate(windows if self.long == "windows" else windows[:1]):
            yield {
                "window": index,
                "start": window.start,
                "bytes": window.stop - window.start,
                "ids": token_ids(text[window.start : window.stop]),
            }

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        return 1

    def predict(self, model: Any, batch: Mapping[str, Any], chunk: int) -> dict[str, Any]:
        import torch

        ids, mask = (torch.from_numpy(array).to(model.device) for array in padded(batch["ids"]))  # B, N
        with torch.inference_mode():
            latents = model.encode(ids, mask)  # B, L, D
            return most_likely(model.decode(latents), self.top_k, model.config)

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, Any], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        return named(predictions["labels"], predictions["scores"], self.threshold, config)


_WINDOW = (
    column("window", pa.int64(), "which of the text's windows"),
    column("start", pa.int64(), "where it begins in the text, in bytes"),
    column("bytes", pa.int32(), "how many bytes of the text are in it"),
)
