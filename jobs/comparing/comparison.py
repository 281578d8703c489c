"""What a comparison of two tables finds, in values that JSON keeps: none of them is NaN or infinite.

Everything is A against B. Swapped, all of it is mirrored, but what is relative to A's values.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from perceiver_core.errors import PerceiverError


class ComparisonError(PerceiverError, ValueError):
    """Raised for two outputs that can't be compared; says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Speed:
    """How fast the run went that closed the table, by its summary."""

    rate: float | None  #: windows a second, of the time in which the model worked; None: its events don't say
    seconds: float  #: of all attempts
    windows: int  #: that the model has done
    device: str  #: cpu | cuda; empty: its events don't say
    machine: str  #: the GPU's type, or the processor and its cores
    busy: Mapping[str, float]  #: by stage, the share of its workers' time that they worked, where it is known


@dataclass(frozen=True)
class Side:
    """One of the two tables."""

    output: str
    manifest: int
    run_id: str  #: that closed it
    runs: int  #: whose rows it has: more than one where that run went on from a table before
    job: str
    checkpoint: str
    items: int
    rows: int
    quarantined: int  #: rows of the quarantine table
    speed: Speed


@dataclass(frozen=True)
class Few:
    """Items, counted, and the first of them by their places."""

    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """Items that one of the two has in quarantine, with a span that the other one has not, by class of the error."""

    error: str
    items: Few


@dataclass(frozen=True)
class Items:
    """Which items are in both."""

    both: int  #: of the same version
    compared: int  #: of these, those that have rows in both
    only_a: Few
    only_b: Few
    other_version: Few  #: in both, and changed in between: not compared
    quarantined_a: tuple[Failed, ...]  #: of the same version, and in quarantine in A alone
    quarantined_b: tuple[Failed, ...]
    quarantined_both: Few
    beyond_limit: int  #: that have rows in both, and were not asked for


@dataclass(frozen=True)
class Rows:
    """The rows of the compared items: windows, by item and place in it."""

    compared: int
    only_a: int
    only_b: int


@dataclass(frozen=True)
class Place:
    """One row of both tables."""

    uri: str
    member: str | None
    window: int | None  #: None where items have no windows

    def __str__(self) -> str:
        member = "" if self.member is None else f" [{self.member}]"
        return f"{self.uri}{member}" + ("" if self.window is None else f" window {self.window}")


@dataclass(frozen=True)
class NumberColumn:
    """A column of floating-point numbers or of uint8 tensors, in the column's own unit."""

    name: str
    type: str  #: A's
    rows: int  #: that have values in both
    changed: int  #: rows of which any value differs
    nulls: int  #: rows that have values in one only
    lengths: int  #: rows whose lists are not equally long: not compared further
    values: int  #: finite in both, which the next three are of
    max_abs: float  #: the largest difference
    mean_abs: float
    largest_a: float  #: the largest absolute value of A
    relative: float | None  #: max_abs of largest_a; None where that is 0
    psnr: float | None  #: dB, for the peak of a known range; None without one, and where nothing differs
    not_finite: int  #: values that are NaN, or the same infinity, in both: no difference
    not_finite_changed: int  #: values that are NaN or infinite, and otherwise in the other one
    worst: Place | None  #: the row with max_abs; None where nothing differs


@dataclass(frozen=True)
class LabelExample:
    """A row whose likeliest label is another one; None where no label reached the threshold."""

    place: Place
    a: str | None
    a_score: float | None
    b: str | None
    b_score: float | None


@dataclass(frozen=True)
class LabelColumn:
    """The columns `labels` and `scores`."""

    rows: int
    top_changed: int  #: rows whose likeliest label is another one
    lists_changed: int  #: rows of which any label, or their order, is another one
    scores: NumberColumn  #: of the labels that both rows name
    examples: tuple[LabelExample, ...]  #: the first rows whose likeliest label is another one

    @property
    def share(self) -> float:
        """Of the rows, those whose likeliest label is another one."""
        return self.top_changed / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class ChangeExample:
    """A row whose value is another one: both, as text, from shortly before where they part."""

    place: Place
    a: str
    b: str


@dataclass(frozen=True)
class ChangeColumn:
    """A column of which values are the same or not: texts, whole numbers, and lists of them."""

    name: str
    type: str
    rows: int
    changed: int  #: rows, those that have a value in one only among them
    examples: tuple[ChangeExample, ...]  #: the first of them

    @property
    def share(self) -> float:
        return self.changed / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Types:
    """A column that is of another type in the other table."""

    name: str
    a: str
    b: str
    compared: bool  #: as numbers: floating-point numbers of another width


@dataclass(frozen=True)
class Skipped:
    """A column that was not compared."""

    name: str
    why: str


@dataclass(frozen=True)
class Columns:
    """How the two tables' columns differ; what says which item a row is of is in neither list."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    types: tuple[Types, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Comparison:
    """Two tables of one task, A against B."""

    task: str
    a: Side
    b: Side
    differences: tuple[str, ...]  #: of their runs' fingerprints: what was compared
    items: Items
    rows: Rows
    columns: Columns
    numbers: tuple[NumberColumn, ...]
    labels: LabelColumn | None
    changes: tuple[ChangeColumn, ...]
    rate_ratio: float | None  #: B's windows a second of A's

    @property
    def same(self) -> bool:
        """Whether both tables hold the same, as far as it was compared."""
        items, rows, columns = self.items, self.rows, self.columns
        return not (
            items.only_a.count or items.only_b.count or items.other_version.count
            or items.quarantined_a or items.quarantined_b or rows.only_a or rows.only_b
            or columns.only_a or columns.only_b or columns.types
            or any(one.changed or one.nulls or one.lengths for one in self.numbers)
            or any(one.changed for one in self.changes)
            or (self.labels and (self.labels.lists_changed or self.labels.scores.changed))
        )  # fmt: skip
