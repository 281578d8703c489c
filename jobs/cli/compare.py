"""perceive compare A B: how two outputs differ, over the items that both have."""

import dataclasses
import json
import math
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from jobs.cli.models import show_table
from jobs.cli.run import ending
from jobs.durations import spoken
from jobs.exit_codes import DIFFERS, DONE

if TYPE_CHECKING:
    from jobs.comparing.comparison import Comparison, Few, Items, NumberColumn, Place, Speed

_MANY = 100  # examples that are worth a look


def _limits(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """--max-abs by column, that without one under the empty name."""
    found: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = math.nan
        if not found[name] >= 0:
            raise click.BadParameter(
                f"expected a number from 0 on, or COLUMN=NUMBER, such as latents=0.01; got {value!r}."
            )
    return found


@click.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--examples", type=click.IntRange(0), default=5, show_default=True, metavar="N",
    help="Of what changed, so many rows and items are named.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1), metavar="ITEMS", help="Only so many items, the first that A has."
)
@click.option(
    "--max-abs", "max_abs", multiple=True, metavar="[COLUMN=]X", callback=_limits,
    help="A check: numbers of this column, or of all others, may be X apart at most.",
)  # fmt: skip
@click.option(
    "--max-changed", "max_changed", type=click.FloatRange(0, 1), metavar="SHARE",
    help="A check: of the rows this share may have another likeliest label or value, or be in one output only, and of "
    "the items be in quarantine in one only.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one JSON object.")
def compare(
    a: str,
    b: str,
    examples: int,
    limit: int | None,
    max_abs: dict[str, float],
    max_changed: float | None,
    as_json: bool,
) -> None:
    """Compare two outputs of one task, A and B, over the items that both have: columns, labels, quarantine, speed.

    Each is an output's folder or URI, OUTPUT/runs/RUN, or a run's id. Exit codes: 0 compared, 2 they can't be
    compared, 6 they differ by more than --max-abs or --max-changed allow.
    """
    with ending(None, as_json):
        from jobs.cli.progress import terminal_progress
        from jobs.comparing.allowed import exceeded
        from jobs.library import compare as compared

        with terminal_progress() as progress:
            found = compared(a, b, examples=examples, limit=limit, progress=progress)
        wrong = exceeded(found, max_abs, max_changed)
    checked = bool(max_abs) or max_changed is not None
    code = DIFFERS if wrong else DONE
    if as_json:
        told = dataclasses.asdict(found) | {"same": found.same, "exceeded": wrong, "exit_code": code}
        click.echo(json.dumps(told, allow_nan=False))
    else:
        _show(found, a, b)
        for line in wrong:
            click.echo(f"More than is allowed: {line}")
        if checked and not wrong:
            click.echo("They differ by no more than is allowed.")
        click.echo(_following(found, a, b, checked))
    sys.exit(code)


def _show(found: "Comparison", a: str, b: str) -> None:
    for name, given, side in (("A", a, found.a), ("B", b, found.b)):
        click.echo(
            f"{name}  {given}: {side.items:,} items, {side.rows:,} rows, {side.quarantined:,} quarantined; "
            f"run {side.run_id}, {side.checkpoint}"
        )
    if found.differences:
        click.echo(f"From A to B: {'; '.join(found.differences)}")
    else:
        click.echo("From A to B: nothing, by the two runs' fingerprints")
    click.echo(f"\n{found.task}: {found.items.compared:,} items compared, {found.rows.compared:,} rows")
    for line in (*_of_items(found.items), *_of_rows(found), *_of_columns(found)):
        click.echo(f"  {line}")
    if found.same:
        click.echo("  Both hold the same.")
    _show_numbers(found)
    _show_changes(found)
    _show_speed(found)


def _of_items(items: "Items") -> Iterator[str]:
    told: list[tuple[str, Few]] = [
        ("only in A", items.only_a),
        ("only in B", items.only_b),
        ("changed in between, and not compared", items.other_version),
        *((f"in quarantine in A only, {one.error}", one.items) for one in items.quarantined_a),
        *((f"in quarantine in B only, {one.error}", one.items) for one in items.quarantined_b),
        ("in quarantine in both", items.quarantined_both),
    ]
    for what, few in told:
        if few.count:
            more = ", ..." if few.count > len(few.examples) > 0 else ""
            named = f": {', '.join(map(_short, few.examples))}{more}" if few.examples else ""
            yield f"{few.count:,} items {what}{named}"
    if items.beyond_limit:
        yield f"{items.beyond_limit:,} more items are in both: --limit"


def _of_rows(found: "Comparison") -> Iterator[str]:
    for name, count in (("A", found.rows.only_a), ("B", found.rows.only_b)):
        if count:
            yield f"{count:,} rows of these items only in {name}"


def _of_columns(found: "Comparison") -> Iterator[str]:
    columns = found.columns
    for name, names in (("A", columns.only_a), ("B", columns.only_b)):
        if names:
            yield f"columns only in {name}: {', '.join(names)}"
    for type in columns.types:
        yield f"column {type.name}: {type.a} in A, {type.b} in B{'' if type.compared else ', not compared'}"
    for skipped in columns.skipped:
        yield f"column {skipped.name} is not compared: {skipped.why}"


def _show_numbers(found: "Comparison") -> None:
    from jobs.comparing.allowed import numbers_of

    numbers = numbers_of(found)
    if not numbers:
        return
    click.echo()
    columns = {
        "numbers": [one.name for one in numbers],
        "type": [one.type for one in numbers],
        "rows differ": [_of(one.changed, one.rows) for one in numbers],
        "max": [_number(one.max_abs) for one in numbers],
        "of A's": ["" if one.relative is None else f"{one.relative:.2%}" for one in numbers],
        "mean": [_number(one.mean_abs) for one in numbers],
        "PSNR": ["" if one.psnr is None else f"{one.psnr:.1f} dB" for one in numbers],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    show_table(shown, right=("rows differ", "max", "of A's", "mean", "PSNR"))
    for one in numbers:
        at = [f"furthest apart at {_near(one.worst)}"] if one.worst else []
        said = "; ".join([*at, *_beside(one)])
        if said:
            click.echo(f"  {one.name}: {said}")


def _beside(one: "NumberColumn") -> list[str]:
    """What no difference tells."""
    counts = {
        "rows with values in one only": one.nulls,
        "rows with lists of other lengths": one.lengths,
        "values NaN or infinite in both": one.not_finite,
        "values NaN or infinite in one only": one.not_finite_changed,
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def _show_changes(found: "Comparison") -> None:
    labels = found.labels
    if labels:
        click.echo(
            f"\nlabels: {_of(labels.top_changed, labels.rows)} rows have another likeliest one ({labels.share:.2%}), "
            f"{labels.lists_changed:,} rows have other labels, or the same in another order"
        )
        for one in labels.examples:
            a, b = _label(one.a, one.a_score), _label(one.b, one.b_score)
            click.echo(f"  {one.place}: {a} -> {b}")
    said = [one for one in found.changes if one.changed]
    for change in said:
        click.echo(f"\n{change.name}: {_of(change.changed, change.rows)} rows changed ({change.share:.2%})")
        for example in change.examples:
            click.echo(f"  {example.place}\n    A {example.a!r}\n    B {example.b!r}")
    same = [one.name for one in found.changes if not one.changed]
    if same:
        click.echo(f"\nthe same in all rows: {', '.join(same)}")


def _show_speed(found: "Comparison") -> None:
    click.echo()
    speeds = found.a.speed, found.b.speed
    rows = {
        "windows/s": [_rate(speed) for speed in speeds],
        "windows": [f"{speed.windows:,}" for speed in speeds],
        "time": [spoken(speed.seconds) for speed in speeds],
        "device": [" ".join(filter(None, (speed.device, speed.machine))) for speed in speeds],
        "busy": [", ".join(f"{name} {share:.0%}" for name, share in speed.busy.items()) for speed in speeds],
    }
    shown = {name: cells for name, cells in rows.items() if any(cells)}
    ratio = {"windows/s": "" if found.rate_ratio is None else f"{found.rate_ratio:.2f}"}
    show_table(
        {
            "speed": [*shown],
            "A": [cells[0] for cells in shown.values()],
            "B": [cells[1] for cells in shown.values()],
            "B / A": [ratio.get(name, "") for name in shown],
        }
    )
    for name, side in (("A", found.a), ("B", found.b)):
        if side.runs > 1:
            click.echo(f"{name}'s rows are of {side.runs} runs; its speed is that of the one that closed it.")


def _following(found: "Comparison", a: str, b: str, checked: bool) -> str:
    """The next useful command."""
    from jobs.comparing.allowed import numbers_of, shares

    if found.items.quarantined_a or found.items.quarantined_b:
        side = found.b if found.items.quarantined_b else found.a
        return f"Next: {shlex.join(['perceive', 'errors', side.output])}"
    again = ["perceive", "compare", a, b]
    labels = found.labels
    if labels and min(labels.top_changed, _MANY) > len(labels.examples):
        return f"Next: {shlex.join([*again, '--examples', str(min(labels.top_changed, _MANY))])}"
    if checked:
        return f"Next: {shlex.join(['perceive', 'status', found.b.output])}"
    for one in numbers_of(found):
        if not (one.nulls or one.lengths or one.not_finite_changed):  # no limit is high enough for these
            again += ["--max-abs", f"{one.name}={above(one.max_abs)}"]
    share = max(one.count / one.whole for one in shares(found))
    return f"Next, as a check: {shlex.join([*again, '--max-changed', above(share)])}"


def above(value: float) -> str:
    """A number in two digits, not below this one."""
    if not value:
        return "0"
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    digits = math.ceil(round(value / step, 9))
    text = f"{digits * step:.2g}"
    return text if float(text) >= value else f"{(digits + 1) * step:.2g}"


def _of(count: int, whole: int) -> str:
    return f"{count:,} of {whole:,}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _rate(speed: "Speed") -> str:
    return "not known" if speed.rate is None else f"{speed.rate:.2f}"


def _label(name: str | None, score: float | None) -> str:
    return "none" if name is None else name if score is None else f"{name} {score:.3f}"


def _near(place: "Place | None") -> str:
    """A row, by its file's name alone."""
    return str(dataclasses.replace(place, uri=_short(place.uri))) if place else ""


def _short(uri: str) -> str:
    return uri.rpartition("/")[2]
