"""The MP4s of a run: one for every item whose windows are all there, made of the committed parts."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, groupby, islice
from threading import Event

import av
import numpy as np
import pyarrow as pa

from pipelines.meter import Progress
from pipelines.mp4 import Shot, mp4_name, write_mp4
from pipelines.multimodal import BOX, FPS
from pipelines.reader import rows, to_numpy
from pipelines.sink import Sink, committed
from pipelines.storage import OutputError, created
from pipelines.tiling import TILE, Tile, part_of, pasted

_COLUMNS = ("item_id", "window", "start_time", "frames", "samples", "video", "audio")
_BOX = tuple(field.name for field in BOX)
_TILE = tuple(field.name for field in TILE)


@dataclass(frozen=True)
class _Video:
    path: str  #: relative to the output
    windows: int


def write_videos(
    plan: pa.Table,
    sink: Sink,
    files: Sequence[str],
    incomplete: Collection[str],
    workers: int,
    progress: Progress,
) -> None:
    """Write the MP4s that are not there yet, `workers` at a time; the items in `incomplete` get none.

    Raises OutputError, leaving no half file, if one can't be written.
    """
    wanted = {item_id: video for item_id, video in _videos(plan, sink) if item_id not in incomplete}
    there = set(sink.storage.names("video"))
    missing = {item_id: video for item_id, video in wanted.items() if video.path not in there}
    progress.stage("videos", len(wanted), done=len(wanted) - len(missing))
    parts = committed(sink)
    columns = [*_COLUMNS, *(name for name in (*_TILE, *_BOX) if name in sink.columns.names)]
    written: list[str] = []
    stop = Event()

    def write(shards: list[int]) -> None:
        windows = chain.from_iterable(rows(sink.storage, parts[shard], columns) for shard in shards)
        for item_id, mine in groupby(windows, lambda row: row["item_id"][0].as_py()):
            if item_id in missing:
                _write_one(missing[item_id], mine, sink, stop)
                written.append(item_id)

    pool = ThreadPoolExecutor(workers)  # x264 lets go of the GIL
    try:
        pending = {pool.submit(write, shards) for shards in _together(plan, missing)}
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            progress.at(len(wanted) - len(missing) + len(written))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    lost = [missing[item_id].path for item_id in missing.keys() - set(written)]
    if lost:
        raise OutputError(
            f"The output doesn't add up: the parts have no window for {len(lost)} videos, such as {min(lost)}. "
            "Report it as a bug."
        )


def shots(windows: Iterable[pa.Table], samples_per_frame: int) -> Iterator[Shot]:
    """Windows of an item that follow each other, as they are shown: each frame once, also where they overlap.

    Of tiles, whole frames, each a shot of its own.
    """
    reached = 0
    for start_time, together in groupby(windows, lambda row: row["start_time"][0].as_py()):
        rows = list(together)  # one, or all tiles of a time
        frames, samples = (rows[0][name][0].as_py() for name in ("frames", "samples"))
        begin = round(start_time * FPS)
        new = max(0, reached - begin)  # the first frame that the window before did not have
        sound = (
            to_numpy(rows[0], "audio")[0, new * samples_per_frame : samples]
            if samples
            else np.empty(0, np.float32)
        )
        if _TILE[0] in rows[0].column_names:
            for picture in islice(_pasted(rows), frames):  # whole frames are large: one at a time
                yield Shot(picture[None], sound)
                sound = sound[:0]
        else:
            yield Shot(_picture(rows[0])[new:frames], sound)
        reached = begin + frames


def _videos(plan: pa.Table, sink: Sink) -> Iterator[tuple[str, _Video]]:
    """Every item's video, by item; an item's spans follow each other in the plan."""
    spans = plan.select(["item_id", "uri", "stop"]).to_pylist()
    for item_id, mine in groupby(spans, lambda span: span["item_id"]):
        *_, last = mine
        yield item_id, _Video(sink.beside(mp4_name(last["uri"], item_id)), last["stop"])


def _together(plan: pa.Table, missing: Collection[str]) -> list[list[int]]:
    """The shards that hold missing videos, those together that share one: each list is read once, in order."""
    together: list[list[int]] = []
    before = None
    for shard, item_id in zip(plan["shard"].to_pylist(), plan["item_id"].to_pylist(), strict=True):
        if item_id in missing:
            if not together or (together[-1][-1] != shard and before != item_id):
                together.append([])
            if shard not in together[-1][-1:]:
                together[-1].append(shard)
        before = item_id
    return together


def _write_one(video: _Video, windows: Iterable[pa.Table], sink: Sink, stop: Event) -> None:
    types = {name: sink.columns.field(name).type for name in ("video", "audio")}
    rate = types["audio"].shape[0] * FPS // types["video"].shape[0]
    with created(sink.storage, video.path) as draft:
        try:
            write_mp4(draft, shots(_in_order(video, windows, stop), rate // FPS), FPS, rate)
        except av.FFmpegError as error:
            raise OutputError(
                f"{sink.storage.where(video.path)} could not be written: {error}. Make room if the disk is full, "
                "then run the job again to resume."
            ) from error


def _in_order(video: _Video, windows: Iterable[pa.Table], stop: Event) -> Iterator[pa.Table]:
    """The item's windows, checked to be all of them and in order."""
    count = 0
    for row in windows:
        if stop.is_set():
            raise CancelledError
        if row["window"][0].as_py() != count:
            break
        yield row
        count += 1
    if count != video.windows:
        raise OutputError(
            f"The output doesn't add up: the parts have {count} windows in order for {video.path}, expected "
            f"{video.windows}. Report it as a bug."
        )


def _pasted(rows: Sequence[pa.Table]) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) of one time, from all of its tiles."""
    parts = []
    for row in rows:
        top, left, height, width, *box = (row[name][0].as_py() for name in (*_TILE, *_BOX))
        parts.append(part_of(to_numpy(row, "video")[0], Tile(top, left, (box[0], box[1], box[2], box[3]))))
    return pasted(parts, (height, width))


def _picture(row: pa.Table) -> np.ndarray:
    """A window's frames (T, H, W, 3), without the bars of a letterboxed one."""
    video: np.ndarray = to_numpy(row, "video")[0]
    if _BOX[0] not in row.column_names:
        return video
    top, left, height, width = (row[name][0].as_py() for name in _BOX)
    return video[:, top : top + height, left : left + width]
