"""Texts: UTF-8 as a model's ids, long texts in overlapping windows that cut no character."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from perceiver_core.config import PerceiverConfig
from perceiver_core.errors import PerceiverError
from perceiver_core.tokenizer.vocabulary import FIRST_BYTE
from pipelines.limits import Limits

Ids = npt.NDArray[np.int16]

PAD, MASK, CLS, SEP = 0, 3, 4, 5  #: ids, as every published checkpoint has them
AROUND = 2  #: ids that a window has beside its bytes: [CLS] and [SEP]


class TextError(PerceiverError, ValueError):
    """Something is wrong with a text; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class TextWindow:
    """Bytes of a text that a model reads at once, and those of them that are nearer to its middle than to another's."""

    start: int
    stop: int
    own_start: int  #: the owned spans follow each other: all of them together are the text
    own_stop: int


def read_text(file: BinaryIO, limits: Limits) -> bytes:
    """All of a text. Raises TextError if it is empty or not UTF-8, LimitError if it is longer than is allowed."""
    data = file.read(limits.text + 1)
    if len(data) > limits.text:
        limits.check("text", len(data) + len(file.read()), "bytes of a text")
    if not data:
        raise TextError("expected a text; got 0 bytes; leave it out of the input, or null in a table")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        found = data[error.start : error.start + 4]
        raise TextError(
            f"expected UTF-8; got {found!r} at byte {error.start} of {len(data)} ({error.reason}); "
            "save the text as UTF-8"
        ) from error
    return data


def most_bytes(config: PerceiverConfig) -> int:
    """How many bytes of a text the model reads at once."""
    return config.max_position_embeddings - AROUND


def check_overlap(overlap: int, config: PerceiverConfig) -> None:
    """Raise ValueError if windows of the model's size can't overlap by so many bytes."""
    most = (most_bytes(config) - 8) // 2  # so that windows go on, also where characters have four bytes
    if not 0 <= overlap <= most:
        raise ValueError(
            f"overlap must be from 0 to {most}, less than half of the {most_bytes(config)} bytes that the checkpoint "
            f"reads at once; got {overlap}."
        )


def cut(data: bytes, size: int, overlap: int) -> list[TextWindow]:
    """Windows of at most `size` bytes that cover a UTF-8 text; a long text's overlap by `overlap` bytes or more.

    No window begins or ends inside a character, which may cost it up to 3 bytes; the last one reaches back, so that it
    is as long as the others. Windows share their overlap half and half, for each byte to be seen where most is around
    it. `check_overlap` says which overlaps there are.
    """
    spans = [(0, _back(data, size))]
    while spans[-1][1] < len(data):
        start = _back(data, spans[-1][1] - overlap)
        if len(data) - start <= size:
            start = _on(data, len(data) - size)
        spans.append((start, _back(data, start + size)))
    seams = [_back(data, (after[0] + before[1]) // 2) for before, after in pairwise(spans)]
    owned = pairwise([0, *seams, len(data)])
    return [TextWindow(*span, *own) for span, own in zip(spans, owned, strict=True)]


def token_ids(data: bytes) -> Ids:
    """[CLS], the bytes and [SEP]; a special token's name in a text is but its bytes."""
    ids = np.empty(len(data) + AROUND, np.int16)
    ids[0], ids[-1] = CLS, SEP
    ids[1:-1] = np.frombuffer(data, np.uint8)
    ids[1:-1] += FIRST_BYTE
    return ids


def padded(rows: Sequence[Ids]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and attention mask of a batch (B, N), filled up with [PAD] to its longest row."""
    ids = np.full((len(rows), max(map(len, rows))), PAD, np.int64)  # B, N
    mask = np.zeros_like(ids)
    for row, own in enumerate(rows):
        ids[row, : len(own)], mask[row, : len(own)] = own, 1
    return ids, mask


def _back(data: bytes, at: int) -> int:
    """The nearest place between two characters, at or before this one."""
    if at >= len(data):
        return len(data)
    while at > 0 and data[at] & 0xC0 == 0x80:  # a continuation byte
        at -= 1
    return at


def _on(data: bytes, at: int) -> int:
    """The nearest place between two characters, at or after this one."""
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += 1
    return at
