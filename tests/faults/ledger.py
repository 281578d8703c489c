"""The ledger: an output's account, made again from its files with pyarrow and json alone, by no code of the product.

    python -m tests.faults.ledger OUTPUT

What it holds a table to: every window of every span of the plans is in a row or its span in quarantine, exactly once;
the manifest's numbers are the files'; the index says where each span is, and it is there.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Ledger:
    """What an output holds, and what is wrong with that."""

    items: int
    rows: int
    quarantined: int
    wrong: tuple[str, ...]


def balance(out: str, filesystem: Any = None) -> Ledger:
    """The account of an output: a local folder, or bucket/prefix on a file system of pyarrow's."""
    files = filesystem or pyarrow.fs.LocalFileSystem()
    number, manifest = _newest(files, out)
    wrong: list[str] = []
    if manifest["number"] != number:
        wrong.append(f"manifest {number} calls itself {manifest['number']}")
    index = _table(files, f"{out}/{manifest['index']}").to_pylist()
    spans = Counter((row["item_id"], row["first"]) for row in index)
    wrong += [f"span {span} is in the index {count} times" for span, count in spans.items() if count > 1]
    rows: Counter[tuple[str, int, int]] = Counter()
    held: dict[str, set[str]] = {}
    total = 0
    for part in manifest["parts"]:
        table = _rows(files, f"{out}/{part['path']}")
        total += table.num_rows
        if table.num_rows != part["rows"]:
            wrong.append(f"{part['path']} has {table.num_rows} rows, the manifest says {part['rows']}")
        held[part["path"]] = set(table["item_id"].to_pylist())
        rows.update(_keys(table))
    if total != manifest["rows"]:
        wrong.append(f"there are {total} rows, the manifest says {manifest['rows']}")
    wrong += [f"row {row} is there {count} times" for row, count in rows.items() if count > 1]
    bad: Counter[tuple[str, int]] = Counter()
    for name in manifest["quarantine"]:
        for row in _table(files, f"{out}/{name}").to_pylist():
            bad[row["item_id"], row["first"]] += 1
    wrong += [f"span {span} is in quarantine {count} times" for span, count in bad.items() if count > 1]
    quarantined = sum(bad.values())
    if quarantined != manifest["quarantined"]:
        wrong.append(f"{quarantined} quarantine rows, the manifest says {manifest['quarantined']}")
    items = {item for item, _ in spans}
    if len(items) != manifest["items"]:
        wrong.append(f"{len(items)} items, the manifest says {manifest['items']}")
    wrong += _unaccounted(index, rows, bad, held)
    wrong += _against_plans(files, out, index)
    return Ledger(len(items), total, quarantined, tuple(wrong))


def _unaccounted(
    index: list[dict[str, Any]],
    rows: Counter[tuple[str, int, int]],
    bad: Counter[tuple[str, int]],
    held: dict[str, set[str]],
) -> list[str]:
    """Spans that are neither in a part nor in quarantine, or in both; rows and quarantine rows of no span."""
    wrong = []
    windows: dict[str, set[int]] = {}
    for item, window, _ in rows:
        windows.setdefault(item, set()).add(window)
    claimed: Counter[str] = Counter()
    for span in index:
        item, first, stop = span["item_id"], span["first"], span["stop"]
        if span["error"] is not None:
            if not bad.pop((item, first), 0):
                wrong.append(f"span {item, first} should be in quarantine, and isn't")
            if span["part"] is not None:
                wrong.append(f"span {item, first} has a part and an error")
            continue
        if (item, first) in bad:
            wrong.append(f"span {item, first} is in a part and in quarantine")
        if item not in held.get(span["part"], set()):
            wrong.append(f"span {item, first} should be in {span['part']}, and isn't")
        have = windows.get(item, set())
        # Of texts nobody knew at planning how many windows they have: they have some, all in one span.
        unknown = (first, stop) == (0, 1)
        missing = set() if unknown and have else {*range(first, stop)} - have
        claimed[item] += len(have) if unknown else stop - first
        wrong += [f"window {window} of {item} is lost" for window in sorted(missing)]
    wrong += [f"quarantine has span {span}, which the index has not" for span in bad]
    for item, have in windows.items():
        if len(have) > claimed[item]:
            wrong.append(f"item {item} has {len(have)} windows, its spans {claimed[item]}")
    return wrong


def _against_plans(files: Any, out: str, index: list[dict[str, Any]]) -> list[str]:
    """Spans of the index that are in no plan of their run, and of the last run's plan those not in the index."""
    wrong = []
    plans: dict[str, set[tuple[int, str, int, int]]] = {}
    for span in index:
        run = span["run_id"]
        if run not in plans:
            with files.open_input_stream(f"{out}/runs/{run}/run.json") as file:
                folder = f"{out}/runs/{run}/{json.loads(file.read())['planned']}"
            table = _table(files, f"{folder}/plan.parquet").to_pylist()
            plans[run] = {(row["shard"], row["item_id"], row["first"], row["stop"]) for row in table}
        if (span["shard"], span["item_id"], span["first"], span["stop"]) not in plans[run]:
            wrong.append(f"span {span['item_id'], span['first']} is in no plan of run {run}")
    last = _newest(files, out)[1]["run_id"]
    done = {(span["item_id"], span["first"]) for span in index if span["run_id"] == last}
    if last in plans:
        wrong += [
            f"span {item, first} of the plan is lost"
            for _, item, first, _ in plans[last]
            if (item, first) not in done
        ]
    return wrong


def _keys(table: pa.Table) -> list[tuple[str, int, int]]:
    """What makes a row another row: its item, window, and of masked texts the place."""
    names = table.column_names
    zeros = [0] * table.num_rows
    window = table["window"].to_pylist() if "window" in names else zeros
    place = table["position"].to_pylist() if "position" in names else zeros
    return list(zip(table["item_id"].to_pylist(), window, place, strict=True))


def _rows(files: Any, path: str) -> pa.Table:
    wanted = ["item_id", "window", "position"]
    format = "parquet" if path.endswith(".parquet") else "ipc"
    table = pyarrow.dataset.dataset(path, format=format, filesystem=files)
    return table.to_table(columns=[name for name in wanted if name in table.schema.names])


def _table(files: Any, path: str) -> pa.Table:
    with files.open_input_file(path) as file:
        return pq.read_table(file)


def _newest(files: Any, out: str) -> tuple[int, dict[str, Any]]:
    found = files.get_file_info(pyarrow.fs.FileSelector(f"{out}/manifests"))
    path = max(info.path for info in found if info.path.endswith(".json"))
    with files.open_input_stream(path) as file:
        return int(Path(path).stem), json.loads(file.read())


if __name__ == "__main__":
    found = balance(sys.argv[1])
    print(f"{found.items} items, {found.rows} rows, {found.quarantined} in quarantine")
    print("\n".join(found.wrong) or "It balances.")
    sys.exit(bool(found.wrong))
