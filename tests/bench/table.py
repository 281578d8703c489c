"""Markdown of what was measured, for the README as it is."""

from __future__ import annotations

from tests.bench.measure import DTYPES, matmul_peak
from tests.bench.run import Comparison, Measured, Row
from tests.bench.task import CAREFUL, DOCUMENTED, FOLDED, PLAIN

HEADER = (
    "| | B=1: s a sample | vs documented | vs careful | best B: s a sample | vs documented | vs careful "
    "| TFLOP/s (of peak) | memory | difference |\n|---|---|---|---|---|---|---|---|---|---|"
)


def table(comparison: Comparison) -> str:
    """One task in one dtype: its title, its table and what is to be known of it."""
    task, rows = comparison.task, comparison.rows
    named = {row.name: row for row in rows}
    peak = matmul_peak(DTYPES[comparison.dtype])
    lines = []
    for row in rows:
        rate = task.gflop * 1e9 / row.best.median
        ratios = [
            [
                f"{getattr(named[peer], at).median / getattr(row, at).median:.2f}"
                for peer in (DOCUMENTED, CAREFUL)
            ]
            for at in ("single", "best")
        ]
        cells = [
            row.name,
            _seconds(row.single),
            *ratios[0],
            f"B={row.best.batch}: {_seconds(row.best)}",
            *ratios[1],
            f"{rate / 1e12:.3g} ({rate / peak:.0%})",
            "-" if row.memory is None else f"{row.memory / 2**30:.2f} GiB",
            f"{row.difference:.0e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"{task.gflop:,g} GFLOP a sample: {task.counted}.", *map(_told, rows), *comparison.notes]
    if task.note:
        notes.append(task.note)
    told = " ".join(note for note in notes if note)
    return f"**{task.title}, {comparison.dtype}**\n\n" + "\n".join([HEADER, *lines]) + f"\n\n{told}\n"


SUMMARY = (
    "| | documented recipe | careful user | perceiver_core | folded | folded against both "
    "| against the recipe in float32 |\n|---|---|---|---|---|---|---|"
)


def summary(comparisons: list[Comparison]) -> str:
    """One line for each task, dtype and batch: medians of seconds a sample, each side at B=1 and at its best B."""
    wide = {
        each.task.name: row.single.median
        for each in comparisons
        if each.dtype == "float32"
        for row in each.rows
        if row.name == DOCUMENTED
    }
    lines = []
    for each in comparisons:
        named = {row.name: row for row in each.rows}
        if FOLDED not in named:
            continue
        for at in ("single", "best"):
            found = {name: getattr(row, at) for name, row in named.items()}
            if at == "best" and all(measured.batch == 1 for measured in found.values()):
                continue
            folded = found[FOLDED].median
            batches = "B=1" if at == "single" else "best B"
            cells = [
                f"{each.task.title}, {each.dtype}, {batches}",
                *(
                    f"{found[name].median:.3g}" + (f" (B={found[name].batch})" if at == "best" else "")
                    for name in (DOCUMENTED, CAREFUL, PLAIN, FOLDED)
                ),
                ", ".join(f"{found[peer].median / folded:.1f}x" for peer in (DOCUMENTED, CAREFUL)),
                f"{wide[each.task.name] / folded:.1f}x" if each.task.name in wide else "-",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([SUMMARY, *lines])


def _seconds(measured: Measured) -> str:
    star = "*" if measured.ran < measured.pieces else ""
    low, high = min(measured.seconds), max(measured.seconds)
    return f"{measured.median:.3g}{star} ({low:.3g} to {high:.3g})"


def _told(row: Row) -> str:
    """Which setting was best, and what was extrapolated."""
    facts = []
    for at in (row.single, row.best) if row.best.setting != row.single.setting else (row.single,):
        if at.setting:
            facts.append(
                f"B={at.batch} {at.setting}" if row.best.setting != row.single.setting else at.setting
            )
    if row.single.ran < row.single.pieces:
        facts.append(f"\\* extrapolated from {row.single.ran} of {row.single.pieces} pieces a turn")
    return f"{row.name}: {'; '.join(facts)}." if facts else ""
