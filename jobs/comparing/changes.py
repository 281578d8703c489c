"""What is the same or not: texts, whole numbers, dates, and lists and tensors of them."""

from typing import Any

import numpy as np
import pyarrow as pa

from jobs.comparing.comparison import ChangeColumn, ChangeExample
from jobs.comparing.numbers import Where
from jobs.comparing.values import Flags, by_row, flat, is_list, is_valid, kept, same_lengths, unequal

_BEFORE, _SHOWN = 20, 60  # characters of an example before the first that differs, and in all


class Changes:
    """Two columns of values that are the same or not, as far as they have come."""

    def __init__(self, a: pa.Field, b: pa.Field, type: str, examples: int) -> None:
        self._a, self._b, self._type, self._most = a, b, type, examples
        self._rows = self._changed = 0
        self._examples: list[ChangeExample] = []

    def add(self, a: pa.Array, b: pa.Array, where: Where) -> None:
        """The next rows of both, as many."""
        changed = self._unequal(a, b)
        self._rows += len(changed)
        self._changed += int(np.count_nonzero(changed))
        for row in np.flatnonzero(changed)[: self._most - len(self._examples)].tolist():
            self._examples.append(ChangeExample(where(row), *_around(a[row].as_py(), b[row].as_py())))

    def result(self) -> ChangeColumn:
        return ChangeColumn(
            self._a.name, self._type, self._rows, self._changed, examples=tuple(self._examples)
        )

    def _unequal(self, a: pa.Array, b: pa.Array) -> Flags:
        there, there_b = is_valid(a), is_valid(b)
        changed: Flags = there != there_b
        there &= there_b
        a, b = kept(a, there), kept(b, there)
        own = np.zeros(len(a), bool)
        if is_list(a.type):
            same = same_lengths(a, b)
            own, a, b = ~same, kept(a, same), kept(b, same)
        values, lengths = flat(a, self._a)
        others, _ = flat(b, self._b)
        unlike = values != others if isinstance(values, np.ndarray) else unequal(values, others)
        own[~own] = by_row(np.logical_or, unlike, lengths, False)
        changed[there] = own
        return changed


def _around(a: Any, b: Any) -> tuple[str, str]:
    """Two values as texts, from shortly before where they part."""
    texts = str(a), str(b)
    shorter = min(map(len, texts))
    parts = next((at for at in range(shorter) if texts[0][at] != texts[1][at]), shorter)
    first = max(0, parts - _BEFORE)
    cut = [
        f"{'...' * (first > 0)}{text[first : first + _SHOWN]}{'...' * (len(text) > first + _SHOWN)}"
        for text in texts
    ]
    return cut[0], cut[1]
