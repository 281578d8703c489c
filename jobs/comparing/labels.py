"""Labels that changed, and how far the scores moved of those that stayed."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.comparing.comparison import LabelColumn, LabelExample
from jobs.comparing.numbers import Numbers, Where
from jobs.comparing.values import by_row, list_lengths, unequal

Places = npt.NDArray[np.int64]


class Labels:
    """The columns `labels` and `scores` of two tables, as far as they have come."""

    def __init__(self, scores: pa.Field, type: str, examples: int) -> None:
        self._scores = Numbers(scores, scores, type, None)
        self._most = examples
        self._rows = self._top = self._lists = 0
        self._examples: list[LabelExample] = []

    def add(self, a: pa.RecordBatch, b: pa.RecordBatch, where: Where) -> None:
        """The next rows of both, as many: batches with the two columns."""
        first_a, first_b = _first(a["labels"]), _first(b["labels"])
        changed = unequal(first_a, first_b)
        self._rows += len(changed)
        self._top += int(np.count_nonzero(changed))
        self._lists += int(np.count_nonzero(_lists_changed(a["labels"], b["labels"])))
        for row in np.flatnonzero(changed)[: self._most - len(self._examples)].tolist():
            scores = (_first(one["scores"].slice(row, 1))[0].as_py() for one in (a, b))
            score_a, score_b = scores
            label_a, label_b = first_a[row].as_py(), first_b[row].as_py()
            self._examples.append(LabelExample(where(row), label_a, score_a, label_b, score_b))
        at_a, at_b, rows = _shared(a["labels"], b["labels"])
        self._scores.measure(
            a["scores"].flatten().to_numpy(zero_copy_only=False)[at_a],
            b["scores"].flatten().to_numpy(zero_copy_only=False)[at_b],
            np.bincount(rows, minlength=len(changed)),
            where,
        )

    def result(self) -> LabelColumn:
        return LabelColumn(
            rows=self._rows,
            top_changed=self._top,
            lists_changed=self._lists,
            scores=self._scores.result(),
            examples=tuple(self._examples),
        )


def _first(lists: pa.Array) -> pa.Array:
    """Each list's first value; null of an empty one."""
    lengths = list_lengths(lists)
    starts = np.cumsum(lengths) - lengths
    return lists.flatten().take(pa.array(starts, mask=lengths == 0))


def _lists_changed(a: pa.Array, b: pa.Array) -> npt.NDArray[np.bool_]:
    lengths = list_lengths(a)
    changed = lengths != list_lengths(b)
    same = pa.array(~changed)
    values = unequal(a.filter(same).flatten(), b.filter(same).flatten())
    changed[~changed] = by_row(np.logical_or, values, lengths[~changed], False)
    return changed


def _shared(a: pa.Array, b: pa.Array) -> tuple[Places, Places, Places]:
    """The labels that a row names in both: where they are among the values of A and of B, and which row, in order."""
    names, others = a.flatten(), b.flatten()
    coded = pa.concat_arrays([names, others]).dictionary_encode()
    codes = coded.indices.to_numpy()
    rows, rows_b = (np.repeat(np.arange(len(lists)), list_lengths(lists)) for lists in (a, b))
    own = rows * len(coded.dictionary) + codes[: len(names)]
    other = rows_b * len(coded.dictionary) + codes[len(names) :]
    again, again_b = _again(own), _again(other)
    most = 1 + max(again.max(initial=0), again_b.max(initial=0))
    _, at_a, at_b = np.intersect1d(
        own * most + again, other * most + again_b, assume_unique=True, return_indices=True
    )
    return at_a, at_b, rows[at_a]


def _again(values: Places) -> Places:
    """How often each value was there before: some classes of a checkpoint share their name."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order], "left")
    return found
