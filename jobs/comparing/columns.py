"""Which columns of two tables are compared, and how: by their types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from jobs.comparing.changes import Changes
from jobs.comparing.comparison import Columns as Found
from jobs.comparing.comparison import ComparisonError, Place, Skipped, Types
from jobs.comparing.labels import Labels
from jobs.comparing.numbers import Numbers
from jobs.comparing.values import is_list, tensor_layout
from pipelines.describing import names_files
from pipelines.stages import ITEM
from pipelines.tensors import type_name

#: What tells the rows of an item apart, and where in it they are: rows of the same number that were cut elsewhere are
#: not the same. Of the tasks that have rows of parts of an item, each has some of these.
PLACES = ("window", "start_time", "start", "tile_top", "tile_left")
#: The peak for PSNR, as video_psnr and audio_psnr have it: 1 for sound in [-1, 1], and for uint8 their largest.
_AUDIO, _AUDIO_PEAK, _UINT8_PEAK = "audio", 1.0, 255.0
_LABELS, _SCORES = "labels", "scores"

Family = Literal["numbers", "bytes", "others"]


@dataclass(frozen=True)
class _Form:
    """What a column's values are to whoever compares them."""

    family: Family
    shape: tuple[int, ...] | None  #: of a tensor
    depth: int  #: of lists


class Columns:
    """The columns that two tables share, as far as they have been compared."""

    def __init__(self, a: pa.Schema, b: pa.Schema, kept: Sequence[str], examples: int) -> None:
        """Of two tables' schemas, and of what both keep of their input. Raises ComparisonError."""
        self.keys = ("item_id", *_places(a, b, kept))
        self.numbers: dict[str, Numbers] = {}
        self.changes: dict[str, Changes] = {}
        self.labels: Labels | None = None
        identity = {*(field.name for field in ITEM), *self.keys}
        own, other = ([name for name in schema.names if name not in identity] for schema in (a, b))
        types, skipped = [], []
        shared = [name for name in own if name in other]
        if {_LABELS, _SCORES} <= {*shared} and _has_labels(a) and _has_labels(b):
            self.labels = Labels(a.field(_SCORES), logical_type(a.field(_SCORES)), examples)
            shared = [name for name in shared if name not in (_LABELS, _SCORES)]
        for name in shared:
            here, there = a.field(name), b.field(name)
            how, said, said_there = _how(here, there), logical_type(here), logical_type(there)
            if said != said_there:
                types.append(Types(name, said, said_there, compared=isinstance(how, _Form)))
            elif isinstance(how, str):
                skipped.append(Skipped(name, how))
            if isinstance(how, str):
                continue
            if how.family == "others":
                self.changes[name] = Changes(here, there, said, examples)
            else:
                self.numbers[name] = Numbers(here, there, said, _peak(name, how))
        self.found = Found(
            only_a=tuple(name for name in own if name not in other),
            only_b=tuple(name for name in other if name not in own),
            types=tuple(types),
            skipped=tuple(skipped),
        )

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        labels = [_LABELS, _SCORES] if self.labels else []
        return [*dict.fromkeys(["uri", "member", *self.keys, *labels, *self.numbers, *self.changes])]

    def add(self, a: pa.RecordBatch, b: pa.RecordBatch) -> None:
        """The next rows of both, row by row the same place of the same item."""

        def where(row: int) -> Place:
            window = a["window"][row].as_py() if "window" in self.keys else None
            return Place(a["uri"][row].as_py(), a["member"][row].as_py(), window)

        if self.labels:
            self.labels.add(a, b, where)
        for name, numbers in self.numbers.items():
            numbers.add(a[name], b[name], where)
        for name, changes in self.changes.items():
            changes.add(a[name], b[name], where)


def logical_type(field: pa.Field) -> str:
    """A column's type as it is shown, a tensor's the same in Arrow and in Parquet."""
    layout = tensor_layout(field)
    return f"{layout[0]} {list(layout[1])}" if layout else type_name(field.type)


def form(field: pa.Field) -> _Form | str:
    """How a column is compared, or why it isn't."""
    if names_files(field):
        return "it names files"
    layout = tensor_layout(field)
    if layout:
        dtype, shape = layout
        if dtype == np.uint8:
            return _Form("bytes", shape, 0)
        return _Form("numbers" if dtype.kind == "f" else "others", shape, 0)
    type, depth = field.type, 0
    while is_list(type):
        type, depth = type.value_type, depth + 1
    if pa.types.is_dictionary(type) and not depth:
        type = type.value_type
    if pa.types.is_floating(type):
        return _Form("numbers", None, depth)
    if not any(is_it(type) for is_it in _SINGLE):
        return f"values of type {logical_type(field)} are not"
    return _Form("others", None, depth)


_SINGLE = (
    pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_decimal, pa.types.is_date,
    pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration, pa.types.is_string, pa.types.is_large_string,
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
)  # fmt: skip


def _how(a: pa.Field, b: pa.Field) -> _Form | str:
    """How two columns are compared, or why they aren't: numbers of any width are, all else of the same type."""
    own, other = form(a), form(b)
    if isinstance(own, str) or isinstance(other, str):
        return own if isinstance(own, str) else str(other)
    if own == other and (own.family == "numbers" or logical_type(a) == logical_type(b)):
        return own
    return "it is of another type in the other table"


def _peak(name: str, form: _Form) -> float | None:
    if form.family == "bytes":
        return _UINT8_PEAK
    return _AUDIO_PEAK if name == _AUDIO and form.shape else None


def _has_labels(schema: pa.Schema) -> bool:
    return bool(
        schema.field(_LABELS).type == pa.list_(pa.string())
        and schema.field(_SCORES).type == pa.list_(pa.float32())
    )


def _places(a: pa.Schema, b: pa.Schema, kept: Sequence[str]) -> tuple[str, ...]:
    """The columns that tell the rows of an item apart; what is only passed through tells nothing."""
    own, other = ([name for name in PLACES if name in schema.names and name not in kept] for schema in (a, b))
    if own != other:
        raise ComparisonError(
            f"Expected rows of the same parts of their items. A's are told apart by {_listed(own)}, B's by "
            f"{_listed(other)}: their items were cut otherwise, so that no row of the one is one of the other. Compare "
            "runs of one kind of checkpoint, whose option fit is tile in both or in neither."
        )
    return tuple(own)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
