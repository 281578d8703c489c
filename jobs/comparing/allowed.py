"""By how much two tables may differ, for checks that nobody looks at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs.comparing.comparison import Comparison, ComparisonError, NumberColumn

ALL = ""  #: in the place of a column's name: of all that have no limit of their own


def exceeded(found: Comparison, max_abs: Mapping[str, float], max_changed: float | None) -> tuple[str, ...]:
    """Where two tables differ by more than is allowed, in sentences; none if they don't.

    `max_abs`: how far numbers may be apart, by column, or in all with ALL; what is there, or a finite number, in one
    only, is further than any. `max_changed`: how much each of `shares` may be, from 0 to 1. Raises ComparisonError for
    a column that has no numbers.
    """
    numbers = numbers_of(found)
    names = [one.name for one in numbers]
    unknown = [name for name in max_abs if name not in (ALL, *names)]
    if unknown:
        raise ComparisonError(
            f"A limit is set for {', '.join(unknown)}, which no compared column of numbers is called. There are: "
            f"{', '.join(names) or 'none'}."
        )
    said = [line for one in numbers for line in _too_far(one, max_abs.get(one.name, max_abs.get(ALL)))]
    if max_changed is not None:
        said += [
            f"{one.count} of {one.whole} {one.what} ({one.count / one.whole:.2%}), and {max_changed:.2%} is allowed"
            for one in shares(found)
            if one.count / one.whole > max_changed
        ]
    return tuple(said)


@dataclass(frozen=True)
class Share:
    """So many of all rows, or items, differ."""

    count: int
    whole: int
    what: str


def shares(found: Comparison) -> list[Share]:
    """What may change from one table to the other, counted."""
    alone = found.rows.only_a + found.rows.only_b
    failed = sum(one.items.count for one in (*found.items.quarantined_a, *found.items.quarantined_b))
    labels = found.labels
    counted = [
        *([Share(labels.top_changed, labels.rows, "rows have another likeliest label")] if labels else []),
        *(Share(one.changed, one.rows, f"rows have another {one.name}") for one in found.changes),
        Share(alone, found.rows.compared + alone, "rows are in one of the two only"),
        Share(failed, found.items.both, "items are in quarantine in one of the two only"),
    ]
    return [share for share in counted if share.whole]


def numbers_of(found: Comparison) -> list[NumberColumn]:
    """All columns of numbers, the labels' scores among them."""
    return [*found.numbers, *([found.labels.scores] if found.labels else [])]


def _too_far(one: NumberColumn, limit: float | None) -> Iterator[str]:
    if limit is None:
        return
    if one.max_abs > limit:
        yield f"{one.name} differs by {one.max_abs:.4g}, and {limit:g} is allowed"
    if one.nulls or one.lengths:
        yield f"{one.name} has other values in one of the two in {one.nulls + one.lengths} rows"
    if one.not_finite_changed:
        yield f"{one.name} is NaN or infinite in one of the two only in {one.not_finite_changed} values"
