"""From texts to a BatchEncoding: ids, truncation, special tokens, padding, tensors, in this order."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from perceiver_core.tokenizer.batch_encoding import BatchEncoding
from perceiver_core.tokenizer.padding import pad_columns
from perceiver_core.tokenizer.texts import EncodedText, batch_of, encode_text
from perceiver_core.tokenizer.tokens import ByteTokens, surround
from perceiver_core.tokenizer.truncation import truncate


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """What a call asks for, resolved."""

    padding: str
    truncation: str
    max_length: int | None
    add_special_tokens: bool
    stride: int
    is_split_into_words: bool
    pad_to_multiple_of: int | None
    padding_side: str
    return_tensors: str | None
    return_token_type_ids: bool
    return_attention_mask: bool
    return_overflowing_tokens: bool
    return_special_tokens_mask: bool
    return_offsets_mapping: bool
    return_length: bool
    split_special_tokens: bool
    whole_characters: bool
    truncation_side: str
    model_max_length: int


@dataclass
class Remarks:
    """What a call has to warn of."""

    losses: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)

    def warn(self) -> None:
        """One warning of each kind, whose place is the caller of the public method."""
        if self.losses:
            warnings.warn(
                f"Truncation cut through a character: {_some(self.losses)}. Pass whole_characters=True to cut before "
                "it, or verbose=False to silence this.",
                stacklevel=3,
            )
        if self.too_long:
            warnings.warn(
                f"Too many ids: {_some(self.too_long)}. Pass truncation=True, or shorten the text.",
                stacklevel=3,
            )


def encode_samples(
    tokens: ByteTokens, text: Any, pair: Any, options: EncodingOptions, remarks: Remarks
) -> BatchEncoding:
    """The encoding of a text or pair, or of a batch of them; what is to be warned of is added to `remarks`."""
    batch = batch_of(text, pair, options.is_split_into_words)
    columns: dict[str, Any]
    if batch is None:
        columns = _sample(tokens, text, pair, options, remarks, "")
    else:
        rows = [_sample(tokens, *both, options, remarks, f" {place}") for place, both in enumerate(batch)]
        fits = {
            "overflowing_tokens": [],
            "num_truncated_tokens": 0,
        }  # where another text of the batch overflows
        columns = {
            name: [row[name] if name in row else fits[name] for row in rows]
            for name in dict.fromkeys(name for row in rows for name in row)
        }
    if batch is not None or options.padding != "do_not_pad" or options.return_attention_mask:
        columns = pad_columns(
            columns,
            tokens.pad_token_id,
            options.padding,
            max_length=options.max_length,
            multiple=options.pad_to_multiple_of,
            side=options.padding_side,
            attention_mask=options.return_attention_mask,
        )
    if batch is None and options.return_length:
        columns["length"] = len(columns["input_ids"])  # upstream counts the padding here, but not in a batch
    places = None
    if options.return_offsets_mapping:
        sequences, offsets = columns.pop("sequence_ids"), columns["offset_mapping"]
        samples = [(sequences, offsets)] if batch is None else zip(sequences, offsets, strict=True)
        places = [[(s, *span) for s, span in zip(*sample, strict=True)] for sample in samples]
    return BatchEncoding(columns, places, options.return_tensors, prepend_batch_axis=batch is None)


def _sample(
    tokens: ByteTokens, text: Any, pair: Any, options: EncodingOptions, remarks: Remarks, number: str
) -> dict[str, Any]:
    """The lists of one sample, truncated and with special tokens, unpadded; `number` is for names within a batch."""
    first = _encoded(tokens, text, f"text{number}", options)
    second = None if pair is None else _encoded(tokens, pair, f"text_pair{number}", options)
    if options.return_overflowing_tokens and options.truncation == "longest_first" and second:
        raise ValueError(
            "return_overflowing_tokens must go with truncation='only_first' or 'only_second' for pairs; got "
            "'longest_first', which cuts both. Choose the one to cut."
        )
    special = tokens.num_special_tokens_to_add(second is not None) if options.add_special_tokens else 0
    total = len(first.ids) + len(second.ids if second else ()) + special
    overflow: list[int] = []
    num_truncated = 0
    if options.truncation != "do_not_truncate" and options.max_length and total > options.max_length:
        wants_overflow = options.return_overflowing_tokens and not options.return_tensors
        cut = truncate(
            first,
            second,
            total - options.max_length,
            options.truncation,
            stride=options.stride if wants_overflow else 0,
            side=options.truncation_side,
            whole_characters=options.whole_characters,
        )
        left = len(cut.first.ids) + len(cut.second.ids if cut.second else ()) + special
        num_truncated = max(total - options.max_length, total - left)
        first, second = cut.first, cut.second
        overflow = cut.overflow if wants_overflow else []
        remarks.losses += cut.losses
    row = _row(tokens, first, second, options)
    if overflow:
        row |= {"overflowing_tokens": overflow, "num_truncated_tokens": num_truncated}
    if options.return_length and number:
        row["length"] = len(row["input_ids"])
    _check_length(len(row["input_ids"]), first.name, options, remarks)
    return row


def _encoded(tokens: ByteTokens, text: Any, name: str, options: EncodingOptions) -> EncodedText:
    return encode_text(
        text,
        tokens.vocabulary,
        name,
        words=options.is_split_into_words,
        split_added=options.split_special_tokens,
        spans=options.return_offsets_mapping,
    )


def _row(
    tokens: ByteTokens, first: EncodedText, second: EncodedText | None, options: EncodingOptions
) -> dict[str, Any]:
    """Ids and what is said of each of them, with or without special tokens around the texts."""
    pair_ids = second.ids if second else None
    num_ids = len(first.ids) + len(pair_ids or ())
    special = options.add_special_tokens
    row: dict[str, Any] = {}
    if special:
        row["input_ids"] = tokens.build_inputs_with_special_tokens(first.ids, pair_ids)
    else:
        row["input_ids"] = first.ids + (pair_ids or [])
    if options.return_token_type_ids:
        types = tokens.create_token_type_ids_from_sequences(first.ids, pair_ids)
        row["token_type_ids"] = types if special else [0] * num_ids
    if options.return_special_tokens_mask:
        mask = tokens.get_special_tokens_mask(first.ids, pair_ids)
        row["special_tokens_mask"] = mask if special else [0] * num_ids
    if options.return_offsets_mapping:
        spans, pair_spans = first.spans or [], second.spans or [] if second else None
        of_first: list[int | None] = [0] * len(first.ids)
        of_second: list[int | None] | None = None if pair_ids is None else [1] * len(pair_ids)
        row["offset_mapping"] = (
            surround(spans, pair_spans, (0, 0), (0, 0)) if special else spans + (pair_spans or [])
        )
        row["sequence_ids"] = (
            surround(of_first, of_second, None, None) if special else of_first + (of_second or [])
        )
    return row


def _check_length(length: int, name: str, options: EncodingOptions, remarks: Remarks) -> None:
    """Remarks on a sample that is longer than truncation was to make it, or without truncation than the model takes."""
    if options.max_length is None and 0 < options.model_max_length < length:
        remarks.too_long.append(f"{name} has {length}, more than model_max_length={options.model_max_length}")
    elif (
        options.max_length is not None
        and options.truncation != "do_not_truncate"
        and length > options.max_length
    ):
        remarks.too_long.append(
            f"{name} has {length} after truncation={options.truncation!r}, more than max_length={options.max_length}"
        )


def _some(found: list[str]) -> str:
    """The first three of them, and how many more."""
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
