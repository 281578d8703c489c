"""Padding as upstream: rows of ids, and what goes with each id, to one length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FILLERS = {
    "attention_mask": 0,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "offset_mapping": (0, 0),
    "sequence_ids": None,
}


def pad_columns(
    columns: Mapping[str, Any],
    pad_id: int | None,
    padding: str,
    *,
    max_length: int | None,
    multiple: int | None,
    side: str,
    attention_mask: bool,
) -> dict[str, Any]:
    """One sample's lists, or a batch's lists of lists, padded; columns other than those of tokens stay as they are.

    A row longer than `max_length` stays so. An empty sample stays empty, as upstream; in a batch it is padded.
    """
    ids = columns["input_ids"]
    if len(ids) == 0:
        return dict(columns) | ({"attention_mask": []} if attention_mask else {})
    if not isinstance(ids[0], list | tuple):
        length = len(ids) if padding == "longest" else max_length
        return _pad_row(columns, pad_id, padding, length, multiple, side, attention_mask)
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"All items of a batch must have one entry per sample; got {sizes}. Pad the samples alone."
        )
    length = max(map(len, ids)) if padding == "longest" else max_length
    rows = [
        _pad_row(
            {name: column[place] for name, column in columns.items()},
            pad_id,
            padding,
            length,
            multiple,
            side,
            attention_mask,
        )
        for place in range(len(ids))
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _pad_row(
    row: Mapping[str, Any],
    pad_id: int | None,
    padding: str,
    length: int | None,
    multiple: int | None,
    side: str,
    attention_mask: bool,
) -> dict[str, Any]:
    size = len(row["input_ids"])
    padded = dict(row)
    if attention_mask:
        padded.setdefault("attention_mask", [1] * size)
    if padding == "do_not_pad" or length is None:
        return padded
    if multiple is not None:
        length = -(-length // multiple) * multiple
    for name, filler in {"input_ids": pad_id, **_FILLERS}.items():
        if name in padded:
            fill = [filler] * (length - size)
            values = list(padded[name])
            padded[name] = values + fill if side == "right" else fill + values
    return padded
