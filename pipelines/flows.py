"""Flow for people and other tools: the Middlebury colour wheel as PNG, and .flo files, one a pair of frames.

The wheel is that of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011): the direction
is the hue, the length the saturation, and white is no motion. Written at a run's end, from committed parts.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipelines.meter import Progress
from pipelines.mp4 import safe_stem
from pipelines.reader import rows
from pipelines.sink import Sink, committed
from pipelines.storage import created
from pipelines.tasks.optical_flow import Kind

Flow = npt.NDArray[np.float32]  # (H, W, 2): dx to the right, dy downwards, in pixels

FOLDER = "flow"
_MAGIC = np.float32(202021.25)  # "PIEH" as little-endian float32, which a reader checks the byte order by
#: From each hue to the next: steps, which of red, green and blue changes, and whether it grows.
_HUES = ((15, 1, True), (6, 0, False), (4, 2, True), (11, 1, False), (13, 0, True), (6, 2, False))


def flow_name(uri: str, item_id: str, window: int, kind: Kind) -> str:
    """Where a pair's file is, relative to the output."""
    return f"{FOLDER}/{safe_stem(uri, item_id)}-{window:06d}.{kind}"


def in_colour(flow: Flow, longest: float | None = None) -> npt.NDArray[np.uint8]:
    """Flow (H, W, 2) as an RGB picture (H, W, 3); fully saturated is `longest` pixels, by default its own longest.

    What is longer is darkened; what is no number is black.
    """
    wheel = _wheel()
    known = np.isfinite(flow).all(-1, keepdims=True)  # (H, W, 1)
    dx, dy = np.where(known, flow, 0).astype(np.float64).transpose(2, 0, 1)
    length = np.hypot(dx, dy)  # (H, W)
    length /= (float(length.max()) if longest is None else longest) or 1.0
    place = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)
    before = np.floor(place).astype(np.intp)
    part = (place - before)[..., None]
    hue = (1 - part) * wheel[before] + part * wheel[(before + 1) % len(wheel)]  # (H, W, 3), in [0, 1]
    length = length[..., None]
    colour = np.where(length <= 1, 1 - length * (1 - hue), 0.75 * hue)
    return (255 * colour * known).astype(np.uint8)


def write_flo(path: Path, flow: Flow) -> None:
    """Write flow (H, W, 2) as Middlebury's .flo: magic, width, height, then dx and dy by rows, little-endian."""
    height, width = flow.shape[:2]
    with path.open("wb") as file:
        file.write(_MAGIC.astype("<f4").tobytes())
        file.write(np.array([width, height], "<i4").tobytes())
        file.write(np.ascontiguousarray(flow, "<f4").tobytes())


def write_flows(
    plan: pa.Table,
    sink: Sink,
    files: Sequence[str],
    incomplete: Collection[str],
    workers: int,
    progress: Progress,
    *,
    kinds: Collection[Kind],
    longest: float | None,
) -> None:
    """Write the files of all pairs that are in the parts and not there yet, `workers` parts at a time.

    A pair has its files whatever became of its item's others. Raises OutputError, leaving no half file, if one can't
    be written.
    """
    there = set(sink.storage.names(FOLDER))
    parts = committed(sink)
    progress.stage("parts with flow files", len(parts))
    stop = Event()
    write: dict[Kind, Callable[[Path, Flow], None]] = {
        "png": lambda path, flow: Image.fromarray(in_colour(flow, longest)).save(path, "png"),
        "flo": write_flo,
    }

    def write_part(part: str) -> None:
        for row in rows(sink.storage, part, ["height", "width", "flow", *kinds]):
            if stop.is_set():
                raise CancelledError
            height, width = row["height"][0].as_py(), row["width"][0].as_py()
            for kind in kinds:
                path = row[kind][0].as_py()
                if path in there:
                    continue
                flow = row["flow"][0].values.to_numpy().reshape(height, width, 2)
                with created(sink.storage, path) as draft:
                    write[kind](draft, flow)

    pool = ThreadPoolExecutor(workers)  # zlib lets go of the GIL
    try:
        pending = {pool.submit(write_part, part) for part in parts.values()}
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            progress.at(len(parts) - len(pending))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@functools.cache
def _wheel() -> npt.NDArray[np.float64]:
    """The colours of the directions (55, 3), in [0, 1]: from red by yellow, green, cyan, blue and magenta."""
    colours, at = [], np.array([255.0, 0, 0])
    for steps, channel, grows in _HUES:
        for step in range(steps):
            colour = at.copy()
            level = np.floor(255 * step / steps)
            colour[channel] = level if grows else 255 - level
            colours.append(colour)
        at[channel] = 255 if grows else 0
    return np.array(colours) / 255
