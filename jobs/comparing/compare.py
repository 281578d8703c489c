"""Two outputs compared: the only file that sees the whole chain.

By their indexes it is known which items both have, and in which files; these are read side by side, and each column
that both have adds up how far its values are apart.
"""

from collections.abc import Callable, Iterator

from jobs import fingerprint
from jobs.comparing.columns import Columns
from jobs.comparing.comparison import Comparison, ComparisonError, Items, Rows
from jobs.comparing.items import matched, pairs
from jobs.comparing.rows import aligned, count_rows
from jobs.comparing.sides import Table, opened, side
from jobs.records import read_table
from jobs.store import Run
from pipelines.listing import LISTING
from pipelines.meter import Progress


def compare(
    a: str, b: str, known: Callable[[str], Run], progress: Progress, examples: int, limit: int | None
) -> Comparison:
    """What differs between two outputs, or the tables of two runs; `known` finds runs by their ids.

    Raises ComparisonError, OutputError, and what `known` does.
    """
    progress.stage("indexes", None)
    one, other = opened(a, known), opened(b, known)
    progress.total(2)
    task = _task(one, other)
    columns = Columns(one.schema, other.schema, [*one.kept, *other.kept], examples)
    items, chosen = matched(one.index, other.index, limit, examples)
    if not items.compared:
        raise ComparisonError(_nothing(items, one, other))
    compared = 0
    files = list(pairs(one.index, other.index, chosen))
    progress.stage("files compared", len(files))
    for number, pair in enumerate(files, 1):
        for own, there in aligned(one, other, pair, columns.keys, columns.names):
            columns.add(own, there)
            compared += own.num_rows
        progress.at(number)
    if not compared:
        raise ComparisonError(
            f"Expected rows of the same parts of their items: {items.compared} items have rows in both tables, and no "
            f"row of the one has the {', '.join(columns.keys)} of one of the other. Compare runs that cut their items "
            "alike: perceive tasks NAME shows the options of a task."
        )
    sides = side(one), side(other)
    rates = [each.speed.rate for each in sides]
    return Comparison(
        task=task,
        a=sides[0],
        b=sides[1],
        differences=tuple(_differences(one, other)),
        items=items,
        rows=Rows(compared, count_rows(one, chosen) - compared, count_rows(other, chosen) - compared),
        columns=columns.found,
        numbers=tuple(numbers.result() for numbers in columns.numbers.values()),
        labels=columns.labels.result() if columns.labels else None,
        changes=tuple(changes.result() for changes in columns.changes.values()),
        rate_ratio=rates[1] / rates[0] if rates[0] and rates[1] else None,
    )


def _task(a: Table, b: Table) -> str:
    task, other = (table.record.fingerprint["task"] for table in (a, b))
    if task != other:
        raise ComparisonError(
            f"Expected two outputs of one task; got {task} in {a.storage.uri} and {other} in {b.storage.uri}. Name "
            "two that one task has made."
        )
    return str(task)


def _differences(a: Table, b: Table) -> Iterator[str]:
    old, new = a.record.fingerprint, b.record.fingerprint
    same = old.get(fingerprint.INPUT) == new.get(fingerprint.INPUT)
    then, now = (
        LISTING.empty_table() if same else read_table(table.storage, table.record, "inputs")
        for table in (a, b)
    )
    yield from fingerprint.changes(old, new, then, now)


def _nothing(items: Items, a: Table, b: Table) -> str:
    """Why there is nothing to compare."""
    quarantined = sum(one.items.count for one in (*items.quarantined_a, *items.quarantined_b))
    if quarantined + items.quarantined_both.count:
        said = (
            f"{quarantined + items.quarantined_both.count} items are in both, and in quarantine in one of them or in "
            f"both. perceive errors {a.storage.uri} and perceive errors {b.storage.uri} say why."
        )
    elif items.other_version.count:
        said = (
            f"{items.other_version.count} items are in both, such as {items.other_version.examples[0]}, and all of "
            "them changed between the two runs: their size, time or etag is another one. Run both jobs on the same "
            "files."
        )
    else:
        said = (
            f"none of A's {items.only_a.count} is among B's {items.only_b.count}. Items are told by their path below "
            "the input's root, and the row or member: run both jobs on the same input.uri, or on copies of one folder."
        )
    return f"Expected items that are in both tables, in the same version; {said}"
