"""Truncation as upstream: which ids of a text or a pair are cut off, and what a character cut in two has lost."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.tokenizer.texts import EncodedText
from perceiver_core.tokenizer.vocabulary import characters, split_character


@dataclass(frozen=True)
class Truncated:
    """What truncation left: the texts, the ids that overflow, and for each character cut in two what it lost."""

    first: EncodedText
    second: EncodedText | None
    overflow: list[int]
    losses: list[str]


def truncate(
    first: EncodedText,
    second: EncodedText | None,
    excess: int,
    strategy: str,
    *,
    stride: int = 0,
    side: str = "right",
    whole_characters: bool = False,
) -> Truncated:
    """Cuts `excess` ids, at the end or, with side "left", at the beginning.

    Strategies are upstream's: "longest_first" cuts the longer of a pair down to the other, then both alike; such pairs
    have no overflow. The overflow is what is cut from the other strategies' one text, and `stride` ids before it.
    With `whole_characters` a character that would be cut in two is cut off whole, so that up to 3 more ids go.
    """
    if excess <= 0:
        return Truncated(first, second, [], [])
    pair_length = len(second.ids) if second else 0
    stride = 0 if second and strategy == "longest_first" else stride
    removed, pair_removed = _shares(len(first.ids), pair_length, excess, strategy, second is not None)
    losses: list[str] = []
    kept, overflow = _cut(first, removed, stride, side, whole_characters, losses)
    if second is None:
        return Truncated(kept, None, overflow, losses)
    kept_pair, pair_overflow = _cut(second, pair_removed, stride, side, whole_characters, losses)
    if strategy == "longest_first":
        # Upstream drops an empty pair here, and with it the pair's [SEP].
        return Truncated(kept, None if side == "left" and not pair_length else kept_pair, [], losses)
    return Truncated(kept, kept_pair, overflow if strategy == "only_first" else pair_overflow, losses)


def _shares(length: int, pair_length: int, excess: int, strategy: str, is_pair: bool) -> tuple[int, int]:
    """How many ids go from a text and from its pair."""
    if strategy == "only_first" or (strategy == "longest_first" and not is_pair):
        return min(length, excess), 0
    if strategy == "only_second":
        return 0, min(pair_length, excess)
    to_equal = min(abs(pair_length - length), excess)
    rest = excess - to_equal
    half = rest // 2
    if length > pair_length:
        return min(length, to_equal + half), min(pair_length, rest - half)
    return min(length, half), min(pair_length, to_equal + rest - half)


def _cut(
    text: EncodedText, removed: int, stride: int, side: str, whole_characters: bool, losses: list[str]
) -> tuple[EncodedText, list[int]]:
    """The text without `removed` ids, and these ids with `stride` ones before (after, on the left) them."""
    if not removed:
        return text, []
    ids, right = text.ids, side == "right"
    at = len(ids) - removed if right else removed
    window = max(at - stride, 0) if right else min(at + stride, len(ids))
    if whole_characters:
        at, window = (_whole(ids, cut, right) for cut in (at, window))
    elif span := split_character(ids, at):
        start, end = span
        lost = end - at if right else at - start
        losses.append(f"{text.name} lost {lost} of the {end - start} bytes of {characters(ids[start:end])!r}")
    if window != at and not whole_characters and (span := split_character(ids, window)):
        edge = "begins" if right else "ends"
        losses.append(f"the overflow of {text.name} {edge} inside of {characters(ids[slice(*span)])!r}")
    if right:
        return text.cut(0, at), ids[window:]
    return text.cut(at, len(ids)), ids[:window]


def _whole(ids: list[int], cut: int, right: bool) -> int:
    """The cut, moved out of a character so that none of it is kept; an overflow gets all of it."""
    span = split_character(ids, cut)
    return cut if span is None else span[0 if right else 1]
