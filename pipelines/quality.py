"""How good a run's rows are, in figures: what its columns say, read part by part, and the SSIM of two pictures.

Which figures there are follows from the columns: PSNR of what was reconstructed, the scores of labels or of filled
masks. So a new task with columns of these names has them as well.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ahead import in_order
from pipelines.sink import schema_of
from pipelines.storage import Storage
from pipelines.tensors import is_tensor

Values = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]  # (height, width, 3)

_ROWS = 16_384  # of a part that are looked at at once
_SIGMA, _RADIUS = 1.5, 5  # of SSIM's Gaussian: 11 x 11
_K1, _K2, _PEAK = 0.01, 0.03, 255.0


@dataclass
class Histogram:
    """How values are spread: counted in bins of one width, so that any number of them takes no memory."""

    low: float
    high: float
    bins: int
    counts: npt.NDArray[np.int64] = field(init=False)
    below: int = 0
    above: int = 0  #: infinities too: of PSNR, what is the same to the last bit
    unknown: int = 0  #: that are no numbers
    sum: float = 0.0  #: of those that are finite
    finite: int = 0
    least: float = np.inf
    most: float = -np.inf

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.bins, np.int64)

    def add(self, values: npt.ArrayLike) -> None:
        """Count these as well."""
        given = np.asarray(values, np.float64).reshape(-1)
        known = given[~np.isnan(given)]
        self.unknown += len(given) - len(known)
        self.below += int((known < self.low).sum())
        self.above += int((known > self.high).sum())
        counts, _ = np.histogram(known, self.bins, (self.low, self.high))
        self.counts += counts
        finite = known[np.isfinite(known)]
        if len(finite):
            self.sum += float(finite.sum())
            self.finite += len(finite)
            self.least = min(self.least, float(finite.min()))
            self.most = max(self.most, float(finite.max()))

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum()) + self.below + self.above

    @property
    def mean(self) -> float | None:
        """Of those that are finite."""
        return self.sum / self.finite if self.finite else None

    def quantile(self, share: float) -> float | None:
        """The value that so large a share of all is at or below, to half a bin."""
        if not self.total:
            return None
        ends = np.cumsum([self.below, *self.counts, self.above])
        place = int(np.searchsorted(ends, share * self.total))
        if place == 0:
            return min(self.low, self.least)
        if place > self.bins:
            return max(self.high, self.most)
        width = (self.high - self.low) / self.bins
        middle = self.low + (place - 0.5) * width
        return min(max(middle, self.least), self.most)


@dataclass(frozen=True)
class Picked:
    """A row that is worth a look, and where it is."""

    part: str  #: relative to the output
    row: int  #: of the part
    item_id: str
    uri: str
    member: str | None
    window: int | None  #: None of rows that have no such column
    value: float  #: that it was picked by


@dataclass(frozen=True)
class Quality:
    """What a run's rows come to."""

    rows: int  #: that were read
    parts_read: int
    parts: int  #: that there are
    spreads: Mapping[str, Histogram]  #: video_psnr | audio_psnr, in dB; label | fill, scores from 0 to 1
    labels: Mapping[str, int]  #: how many rows have each as their likeliest, the most first
    unlabelled: int  #: rows with no label at or above the threshold
    by: str | None  #: the spread by which rows are good or bad; None: nothing says
    best: tuple[Picked, ...]  #: of one item each, the best first
    worst: tuple[Picked, ...]
    random: tuple[Picked, ...]


def measure(
    storage: Storage,
    parts: Sequence[str],
    seed: int,
    count: int,
    most_parts: int = 1_000,
    seen: Callable[[int], None] = lambda _: None,
) -> Quality:
    """Read what these parts' columns say, of at most so many parts, evenly; `count` of the best, the worst and random.

    `seen` hears how many parts were read so far.
    """
    read = min(len(parts), most_parts)
    chosen = [parts[i * len(parts) // read] for i in range(read)]
    scan = _Scan(count, np.random.default_rng(seed))
    for done, (name, batches) in enumerate(in_order(lambda name: (name, _read(storage, name)), chosen, 4), 1):
        scan.part(name, batches)
        seen(done)
    return Quality(
        rows=scan.rows,
        parts_read=len(chosen),
        parts=len(parts),
        spreads={name: spread for name, spread in scan.spreads.items() if spread.total or spread.unknown},
        labels=dict(scan.labels.most_common()),
        unlabelled=scan.unlabelled,
        by=scan.by,
        best=scan.best.picked(),
        worst=scan.worst.picked(),
        random=_by_items(scan.random.picked(), scan.rows_by_chance.picked()),
    )


def take(storage: Storage, part: str, row: int, columns: Sequence[str] | None = None) -> pa.Table:
    """One row of a part, as a table; what else of the part is read is one batch or row group."""
    with storage.open(part) as file:
        if part.endswith(".parquet"):
            parquet = pq.ParquetFile(file)
            for group in range(parquet.num_row_groups):
                there = parquet.metadata.row_group(group).num_rows
                if row < there:
                    return parquet.read_row_group(group, columns=columns).slice(row, 1)
                row -= there
        else:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                if row < batch.num_rows:
                    table = pa.Table.from_batches([batch.slice(row, 1)])
                    return table if columns is None else table.select(columns)
                row -= batch.num_rows
    raise LookupError(f"{part} has no row {row} more: expected it there, for it was read before.")


def ssim(one: Picture, other: Picture) -> float | None:
    """Structural similarity of two pictures, 1 where they are the same; None of those smaller than its window.

    As Wang et al. define it (2004): a Gaussian of 11 x 11 pixels and sigma 1.5, K1 0.01, K2 0.03, a peak of 255, and
    only windows that lie within the picture; the mean of the three colours.
    """
    if one.shape != other.shape:
        raise ValueError(f"expected two pictures of one shape; got {one.shape} and {other.shape}")
    if min(one.shape[:2]) < 2 * _RADIUS + 1:
        return None
    x, y = one.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    xx = _blurred(x * x) - mean_x**2
    yy = _blurred(y * y) - mean_y**2
    xy = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    same = (2 * mean_x * mean_y + c1) * (2 * xy + c2)
    return float((same / ((mean_x**2 + mean_y**2 + c1) * (xx + yy + c2))).mean())


def _blurred(picture: Values) -> Values:
    """By the Gaussian, where all of it lies within the picture: ten rows and columns less."""
    taps = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    taps /= taps.sum()
    height, width = (side - 2 * _RADIUS for side in picture.shape[:2])
    rows = sum((tap * picture[at : at + height] for at, tap in enumerate(taps)), np.zeros(()))
    columns: Values = sum((tap * rows[:, at : at + width] for at, tap in enumerate(taps)), np.zeros(()))
    return columns


class _Scan:
    """What is kept of the rows that were read."""

    def __init__(self, count: int, random: np.random.Generator) -> None:
        self.rows = self.unlabelled = 0
        self.spreads = {
            "video_psnr": Histogram(0, 60, 240),
            "audio_psnr": Histogram(0, 60, 240),
            "label": Histogram(0, 1, 100),
            "fill": Histogram(0, 1, 100),
        }
        self.labels: Counter[str] = Counter()
        self.by: str | None = None
        self.best, self.worst, self.random = _Top(count), _Top(count), _Top(3 * count)
        self.rows_by_chance = _Top(3 * count, by_item=False)
        self._generator = random

    def part(self, name: str, batches: Sequence[pa.RecordBatch]) -> None:
        first = 0
        for batch in batches:
            places = _Places(name, first, batch)
            values = self._values(batch)
            if values is not None:
                self.best.add(-values, values, places)
                self.worst.add(values, values, places)
            chance = self._generator.random(batch.num_rows)
            for top in (self.random, self.rows_by_chance):
                top.add(chance, chance if values is None else values, places)
            first += batch.num_rows
        self.rows += first

    def _values(self, batch: pa.RecordBatch) -> Values | None:
        """Count what a batch says; how good each of its rows is, if that is known."""
        found: dict[str, Values] = {}
        for name in ("video_psnr", "audio_psnr"):
            if name in batch.schema.names:
                column = batch[name]
                self.spreads[name].add(column.drop_null().to_numpy(zero_copy_only=False))
                found[name] = column.to_numpy(zero_copy_only=False).astype(np.float64)
        if "labels" in batch.schema.names:
            found["label"] = self._labels(batch)
        elif _is_list(batch.schema, "scores") and pa.types.is_list(
            batch.schema.field("scores").type.value_type
        ):
            found["fill"] = self._fills(batch["scores"])
        if not found:
            return None
        self.by = next(iter(found))
        return found[self.by]

    def _labels(self, batch: pa.RecordBatch) -> Values:
        which, there = _firsts(batch["labels"])
        self.unlabelled += int((~there).sum())
        counted = batch["labels"].values.take(pa.array(which)).value_counts().to_pylist()
        self.labels.update({one["values"]: one["counts"] for one in counted})
        scores = np.full(batch.num_rows, np.nan)
        which, there = _firsts(batch["scores"])
        scores[there] = batch["scores"].values.to_numpy(zero_copy_only=False)[which]
        self.spreads["label"].add(scores[there])
        return scores

    def _fills(self, scores: pa.ListArray) -> Values:
        """A row has a list for each mask: its score is the mean of their first ones."""
        inner = scores.values
        which, there = _firsts(inner)
        likeliest = np.full(len(inner), np.nan)
        likeliest[there] = inner.values.to_numpy(zero_copy_only=False)[which]
        ends = scores.offsets.to_numpy()
        self.spreads["fill"].add(likeliest[ends[0] : ends[-1]])
        sums = np.concatenate([[0.0], np.cumsum(likeliest)])
        count = np.diff(ends)
        with np.errstate(invalid="ignore"):
            return (sums[ends[1:]] - sums[ends[:-1]]) / np.where(count, count, np.nan)


@dataclass(frozen=True)
class _Places:
    """Where the rows of a batch are."""

    part: str
    first: int
    batch: pa.RecordBatch

    def picked(self, row: int, value: float) -> Picked:
        says: dict[str, Any] = {
            name: self.batch[name][row].as_py() if name in self.batch.schema.names else None
            for name in ("item_id", "uri", "member", "window")
        }
        return Picked(part=self.part, row=self.first + row, value=value, **says)


class _Top:
    """The rows with the smallest keys, of each item its smallest alone unless it is not `by_item`."""

    def __init__(self, count: int, by_item: bool = True) -> None:
        self._count, self._by_item = count, by_item
        self._kept: dict[Any, tuple[float, Picked]] = {}

    def add(self, keys: Values, values: Values, places: _Places) -> None:
        items = places.batch["item_id"].dictionary_encode()
        order = np.argsort(keys, kind="stable")  # what is no number is last
        if self._by_item:
            _, firsts = np.unique(items.indices.to_numpy()[order], return_index=True)
            order = order[np.sort(firsts)]
        for row in order[: self._count].tolist():
            key = float(keys[row])
            if np.isnan(key):
                break
            item = (
                items.dictionary[items.indices[row].as_py()].as_py()
                if self._by_item
                else (places.part, places.first + row)
            )
            if item in self._kept and self._kept[item][0] <= key:
                continue
            self._kept[item] = key, places.picked(row, float(values[row]))
            if len(self._kept) > self._count:
                del self._kept[max(self._kept, key=lambda one: self._kept[one][0])]

    def picked(self) -> tuple[Picked, ...]:
        return tuple(picked for _, picked in sorted(self._kept.values(), key=lambda one: one[0]))


def _by_items(of_items: Sequence[Picked], of_rows: Sequence[Picked]) -> tuple[Picked, ...]:
    """Rows of an item each; where items are few, more of their rows."""
    known = {(one.part, one.row) for one in of_items}
    more = [one for one in of_rows if (one.part, one.row) not in known]
    return (*of_items, *more)[: max(len(of_items), len(of_rows))]


def _read(storage: Storage, name: str) -> list[pa.RecordBatch]:
    """What a part has of the columns that say something; frames and flow stay where they are."""
    schema = schema_of(storage, name)
    wanted = [one for one in ("item_id", "uri", "member", "window") if one in schema.names]
    wanted += [one for one in ("video_psnr", "audio_psnr") if one in schema.names]
    wanted += [one for one in ("labels", "scores") if _is_list(schema, one)]
    with storage.open(name) as file:
        if name.endswith(".parquet"):
            return list(pq.ParquetFile(file).iter_batches(_ROWS, columns=wanted))
        places = [i for i, one in enumerate(schema.names) if one in wanted]
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=places))
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def _is_list(schema: pa.Schema, name: str) -> bool:
    return (
        name in schema.names
        and not is_tensor(schema.field(name).type)
        and pa.types.is_list(schema.field(name).type)
    )


def _firsts(lists: pa.ListArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Of each list that has one, where in the values its first is; and which lists have one."""
    ends = lists.offsets.to_numpy().astype(np.int64)
    there = (np.diff(ends) > 0) & np.asarray(lists.is_valid())
    return ends[:-1][there], there
