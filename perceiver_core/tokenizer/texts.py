"""What a tokenizer's `text` may be: a text, a pair, ids, words, or a batch of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from perceiver_core.tokenizer.vocabulary import ByteVocabulary, Span

Sample = tuple[Any, Any]  # a text and its pair, or None


@dataclass(frozen=True)
class EncodedText:
    """Ids of one text, without special tokens around it; `spans` are their characters, None where not asked for."""

    ids: list[int]
    spans: list[Span] | None = None
    name: str = "text"  # what errors and warnings call it

    def cut(self, start: int, stop: int) -> EncodedText:
        """The ids from `start` to before `stop`."""
        spans = None if self.spans is None else self.spans[start:stop]
        return replace(self, ids=self.ids[start:stop], spans=spans)


def batch_of(text: Any, pair: Any, words: bool) -> list[Sample] | None:
    """The samples of a batch; None for what is one sample. With `words`, a list of texts is one text.

    As upstream, a list or tuple of two in a batch is a pair, but with `words` only a tuple is.
    """
    if not isinstance(text, list | tuple):
        return None
    if not text:
        raise ValueError(
            "text must have at least one text; got an empty list. Leave out the call, or give ['']."
        )
    if not isinstance(text[0], list | tuple if words else str | list | tuple):
        return None
    if pair is not None and (not isinstance(pair, list | tuple) or len(pair) != len(text)):
        got = f"{len(pair)}" if isinstance(pair, list | tuple) else type(pair).__name__
        raise ValueError(
            f"text_pair must be a list as long as text, {len(text)}; got {got}. Give a second text for each."
        )
    pairs = repeat(None) if pair is None else pair
    return [_sample(first, second, words) for first, second in zip(text, pairs, strict=False)]


def _sample(text: Any, pair: Any, words: bool) -> Sample:
    if pair is not None or not isinstance(text, list | tuple) or not text or isinstance(text[0], int):
        return text, pair
    both = len(text) == 2 and all(isinstance(part, str | list | tuple) for part in text)
    if both and (not words or isinstance(text, tuple)):
        return text[0], text[1]
    if len(text) == 1:
        return text[0], None
    if not words:
        raise ValueError(
            f"A list within a batch must be ids or a pair of texts; got {len(text)} texts. "
            "For texts that are split into words pass is_split_into_words=True."
        )
    return text, None


def encode_text(
    text: Any, vocabulary: ByteVocabulary, name: str, *, words: bool, split_added: bool, spans: bool
) -> EncodedText:
    """Ids of a text, of a list of words, tokens, or ids."""
    if isinstance(text, str):
        found = vocabulary.spans(text, split_added) if spans else None
        return EncodedText(vocabulary.encode(text, name, split_added), found, name)
    if isinstance(text, list | tuple) and text and all(isinstance(part, str) for part in text) and words:
        parts = [vocabulary.encode(word, name, split_added) for word in text]
        found = [span for word in text for span in vocabulary.spans(word, split_added)] if spans else None
        return EncodedText([index for part in parts for index in part], found, name)
    if not isinstance(text, list | tuple) or not text:
        raise ValueError(
            f"{name} must be a str, or a list of ids, tokens or words; got {text!r:.60}. "
            "Decode bytes first: data.decode()."
        )
    if spans:
        raise ValueError(
            f"return_offsets_mapping needs texts; got a list of {type(text[0]).__name__} for {name}. Give a str."
        )
    ids: list[Any] = [vocabulary.ids.get(part, part) if isinstance(part, str) else part for part in text]
    vocabulary.tokens_of(ids)  # refuses what is no id, before a model does
    return EncodedText(ids, None, name)
