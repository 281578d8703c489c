"""masked-lm: the masked bytes of a text, by what is around them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from perceiver_core.tokenizer.vocabulary import FIRST_BYTE, NUM_BYTES
from pipelines.contents import TEXT, Content
from pipelines.describing import column, option
from pipelines.limits import Limits
from pipelines.tensors import Format
from pipelines.texts import MASK, TextError, check_overlap, cut, most_bytes, padded, read_text, token_ids

MARKER = b"[MASK]"


@dataclass(frozen=True)
class MaskedLM:
    """Fill in masked bytes of UTF-8 texts: the likeliest ones of each, and the text with the best."""

    name: ClassVar[str] = "masked-lm"
    architectures: ClassVar[tuple[str, ...]] = ("PerceiverForMaskedLM",)
    contents: ClassVar[tuple[tuple[Content, ...], ...]] = ((TEXT,),)
    probes: ClassVar[bool] = False
    preview: ClassVar[tuple[str, ...]] = ("window", "start", "filled")
    reconstructs: ClassVar[bool] = False

    top_k: int = option(5, "how many bytes a mask gets")
    mask_bytes: int = option(1, "how many masked bytes the marker [MASK] stands for")
    positions: tuple[tuple[int, int], ...] = option(
        (), "masked in every text instead of markers: byte spans [start, stop), such as [[52, 60]]"
    )
    overlap: int = option(
        256, "bytes that the windows of a long text share; a mask is filled in where most is around it"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= NUM_BYTES:
            raise ValueError(
                f"top_k must be from 1 to {NUM_BYTES}, as many as there are bytes; got {self.top_k}."
            )
        if self.mask_bytes < 1:
            raise ValueError(f"mask_bytes must be at least 1; got {self.mask_bytes}.")
        for start, stop in self.positions:
            if not 0 <= start < stop:
                raise ValueError(f"positions must be spans with 0 <= start < stop; got {[start, stop]}.")

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
        return pa.schema(
            [
                *_WINDOW,
                pa.field("ids", pa.large_list(pa.int16())),  # of the window; none where nothing is masked
                pa.field("places", pa.large_list(pa.int64())),  # of its masks in its ids
                pa.field("text", pa.large_list(pa.uint8())),  # that `filled` will be
            ]
        )

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        lists = "a list for each position, the likeliest first"
        return pa.schema(
            [
                *_WINDOW,
                column("tokens", pa.list_(pa.list_(pa.uint8())), f"bytes: {lists}"),
                column(
                    "scores", pa.list_(pa.list_(pa.float32())), f"their probabilities, of 1 in all: {lists}"
                ),
                column(
                    "filled",
                    pa.large_string(),
                    "the text from start on, as far as the window has to fill it in, with the likeliest byte at each "
                    "position; what is no UTF-8 is U+FFFD",
                ),
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
        text, masked = self._masked(read_text(files["text"], limits))
        if not len(masked):
            nothing = np.empty(0, np.int64)
            yield {
                "window": 0,
                "start": 0,
                "positions": nothing,
                "ids": nothing,
                "places": nothing,
                "text": np.frombuffer(text, np.uint8),
            }
        for index, window in enumerate(cut(text, most_bytes(config), self.overlap) if len(masked) else []):
            inside = masked[slice(*np.searchsorted(masked, [window.start, window.stop]))]
            own = masked[slice(*np.searchsorted(masked, [window.own_start, window.own_stop]))]
            if len(own):
                ids = token_ids(text[window.start : window.stop])
                ids[inside - window.start + 1] = MASK  # 1: [CLS]
                yield {
                    "window": index,
                    "start": window.own_start,
                    "positions": own,
                    "ids": ids,
                    "places": own - window.start + 1,
                    "text": np.frombuffer(text[window.own_start : window.own_stop], np.uint8),
                }

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        # A point holds a row of scores for each of 8 heads, about four rows of its query's width, and its logits.
        point = 8 * config.num_latents + 4 * config.d_model + 2 * config.vocab_size
        return max(1, min(config.max_position_embeddings, budget // (4 * batch * point)))

    def predict(self, model: Any, batch: Mapping[str, Any], chunk: int) -> dict[str, Any]:
        import torch

        none = np.empty((0, self.top_k))
        tokens = [none.astype(np.uint8) for _ in batch["places"]]
        scores = [none.astype(np.float32) for _ in batch["places"]]
        masked = [row for row, places in enumerate(batch["places"]) if len(places)]
        if masked:
            ids, mask = (
                torch.from_numpy(array).to(model.device)
                for array in padded([batch["ids"][row] for row in masked])
            )  # B, N
            places = np.zeros(
                (len(masked), max(len(batch["places"][row]) for row in masked)), np.int64
            )  # B, M
            for own, row in zip(places, masked, strict=True):
                own[: len(batch["places"][row])] = batch["places"][row]
            with torch.inference_mode():
                latents = model.encode(ids, mask)  # B, L, D
                points = torch.from_numpy(places).to(model.device)
                logits = model.decode(latents, points, min(chunk, places.shape[1]))  # B, M, vocabulary
                of_bytes = logits.float().softmax(-1)[..., FIRST_BYTE : FIRST_BYTE + NUM_BYTES]  # B, M, 256
                best = of_bytes.topk(self.top_k)  # B, M, K
            for row, byte, score in zip(masked, best.indices.cpu(), best.values.cpu(), strict=True):
                count = len(batch["places"][row])
                tokens[row], scores[row] = byte[:count].numpy().astype(np.uint8), score[:count].numpy()
        return {"tokens": tokens, "scores": scores}

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, Any], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        filled = []
        rows = zip(
            windows["text"], windows["positions"], windows["start"], predictions["tokens"], strict=True
        )
        for text, positions, start, tokens in rows:
            bytes_ = text.values.to_numpy().copy()
            bytes_[positions.values.to_numpy() - start.as_py()] = tokens[:, 0]
            filled.append(bytes_.tobytes().decode(errors="replace"))
        return {
            "tokens": pa.array(
                [row.tolist() for row in predictions["tokens"]], pa.list_(pa.list_(pa.uint8()))
            ),
            "scores": pa.array(
                [row.tolist() for row in predictions["scores"]], pa.list_(pa.list_(pa.float32()))
            ),
            "filled": pa.array(filled, pa.large_string()),
        }

    def _masked(self, text: bytes) -> tuple[bytes, npt.NDArray[np.int64]]:
        """The text, with a placeholder for each masked byte of a marker, and which of its bytes are masked."""
        if self.positions:
            furthest = max(stop for _, stop in self.positions)
            if furthest > len(text):
                raise TextError(
                    f"expected a text of {furthest} bytes or more, for options.positions reach so far; got "
                    f"{len(text)}; leave it out of the input, or mark its masks as [MASK]"
                )
            spans = [np.arange(start, stop) for start, stop in self.positions]
            return text, np.unique(np.concatenate(spans))
        pieces = text.split(MARKER)
        masks = np.cumsum(
            [len(piece) for piece in pieces[:-1]], dtype=np.int64
        )  # without the masks before each
        starts = masks + self.mask_bytes * np.arange(len(masks))
        masked = (starts[:, None] + np.arange(self.mask_bytes)).reshape(-1)
        return (b"_" * self.mask_bytes).join(pieces), masked


_WINDOW = (
    column("window", pa.int64(), "which of the text's windows; those with nothing to fill in have no row"),
    column("start", pa.int64(), "where `filled` begins in the text: a byte, counted as `positions` are"),
    column(
        "positions",
        pa.large_list(pa.int64()),
        "which bytes are masked, counted from the text's first byte; a marker counts as the bytes that it stands for",
    ),
)
