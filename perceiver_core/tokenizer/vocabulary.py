"""The vocabulary of bytes: UTF-8 text to ids and back. Ids 0 to 5 are special tokens, 6 to 261 the bytes 0 to 255."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

FIRST_BYTE = 6  #: id of the byte 0
NUM_BYTES = 256

T = TypeVar("T", str, bytes)
Span = tuple[int, int]  # start and end of a token's character in its text, in characters


@dataclass(frozen=True, eq=False)
class ByteVocabulary:
    """Every byte, and the tokens of `added`, by id. A byte's token is the character of its number, as upstream.

    The texts of added tokens are found in a text before its bytes are, the longest first.
    """

    added: Mapping[int, str]

    @cached_property
    def added_ids(self) -> dict[str, int]:
        """Ids of the added tokens; the highest of those that have the same text."""
        return {self.added[index]: index for index in sorted(self.added)}

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids of all tokens."""
        return {chr(byte): byte + FIRST_BYTE for byte in range(NUM_BYTES)} | self.added_ids

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Tokens of all ids."""
        return {byte + FIRST_BYTE: chr(byte) for byte in range(NUM_BYTES)} | dict(self.added)

    @cached_property
    def _byte_ids(self) -> list[int]:
        return [self.ids[chr(byte)] for byte in range(NUM_BYTES)]  # an added token may be the token of a byte

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {index: self.bytes_of(token) for index, token in self.tokens.items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        texts = sorted(filter(None, self.added_ids), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, texts))})") if texts else None

    def with_added(self, texts: Iterable[str]) -> ByteVocabulary:
        """This vocabulary and tokens for these texts; a new one gets the id that is the vocabulary's size."""
        added, ids = dict(self.added), dict(self.ids)
        for text in filter(None, texts):
            added[ids.setdefault(text, len(ids))] = text
        return ByteVocabulary(added)

    def encode(self, text: str, name: str, split_added: bool = False) -> list[int]:
        """Ids of a text; `split_added` makes bytes of the added tokens' texts too. `name` is for errors."""
        byte_ids = self._byte_ids.__getitem__
        try:
            pieces = self._pieces(text, split_added)
            if len(pieces) == 1:
                return list(map(byte_ids, text.encode()))
            ids: list[int] = []
            for place, piece in enumerate(pieces):  # every second piece is an added token's text
                ids += [self.added_ids[piece]] if place % 2 else map(byte_ids, piece.encode())
        except UnicodeEncodeError as error:
            at = re.search("[\ud800-\udfff]", text)
            assert at
            raise ValueError(
                f"{name} must be Unicode text that UTF-8 can hold; got the lone surrogate {at[0]!r} at character "
                f"{at.start()}. Replace it: text.encode('utf-8', 'replace').decode()."
            ) from error
        return ids

    def spans(self, text: str, split_added: bool = False) -> list[Span]:
        """For each id of `encode(text)`, where its character, or its added token's text, lies in `text`."""
        spans: list[Span] = []
        start = 0
        for place, piece in enumerate(self._pieces(text, split_added)):
            if place % 2:
                spans.append((start, start + len(piece)))
            elif piece.isascii():
                spans += [(at, at + 1) for at in range(start, start + len(piece))]
            else:
                for at, character in enumerate(piece, start):
                    spans += [(at, at + 1)] * len(character.encode())
            start += len(piece)
        return spans

    def _pieces(self, text: str, split_added: bool) -> list[str]:
        return [text] if split_added or not self._pattern else self._pattern.split(text)

    def tokens_of(self, ids: Sequence[int]) -> list[str]:
        """Tokens of ids. Raises ValueError for what is no id."""
        return self._look_up(self.tokens, ids)

    def decode(self, ids: Sequence[int], skipped: Iterable[int] = ()) -> str:
        """Text of ids without the skipped, with the replacement character where their bytes are not UTF-8.

        Raises ValueError for what is no id.
        """
        table = self._bytes | {index: b"" for index in skipped if index in self._bytes}
        return b"".join(self._look_up(table, ids)).decode("utf-8", "replace")

    def bytes_of(self, token: str) -> bytes:
        """UTF-8 of an added token, or the byte of a byte's token."""
        if token not in self.ids:
            raise ValueError(
                f"Tokens must be of this vocabulary; got {token!r}. They are single bytes as characters from "
                f"'\\x00' to '\\xff', and {sorted(self.added_ids)}: tokenize(text) makes them."
            )
        return token.encode() if token in self.added_ids else bytes([ord(token)])

    def _look_up(self, table: Mapping[int, T], ids: Sequence[int]) -> list[T]:
        try:
            return [table[index] for index in ids]
        except (KeyError, TypeError):  # a nested list is not hashable
            place, wrong = next(
                (i, x) for i, x in enumerate(ids) if isinstance(x, list | dict) or x not in table
            )
            raise ValueError(
                f"ids must be whole numbers from 0 to {max(table)}; got {wrong!r} at position {place}. "
                "Of a model's logits, take logits.argmax(-1)."
            ) from None


def split_character(ids: Sequence[int], cut: int) -> Span | None:
    """Start and end of the UTF-8 character that a cut before ids[cut] goes through; None if it goes through none."""
    if not 0 < cut < len(ids) or not _continues(ids[cut]):
        return None
    start = next((at for at in range(cut - 1, max(cut - 4, -1), -1) if not _continues(ids[at])), cut)
    for end in range(cut + 1, min(start + 4, len(ids)) + 1):
        try:
            bytes(index - FIRST_BYTE for index in ids[start:end]).decode()
        except ValueError:  # not UTF-8, or an added token's id
            continue
        return start, end
    return None


def _continues(index: int) -> bool:
    return 0x80 <= index - FIRST_BYTE < 0xC0


def characters(ids: Sequence[int]) -> str:
    """The text of bytes' ids that are known to be UTF-8."""
    return bytes(index - FIRST_BYTE for index in ids).decode()
