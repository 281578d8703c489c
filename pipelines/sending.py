"""A checkpoint on a cluster's nodes: the very files that the run was planned with, fetched once a node.

From the node of the run's own process, through Ray, into the folder where fetched checkpoints are kept. What other
nodes have at the same path may be something else, or nothing.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_core.sources import CheckpointError, cache_folder, digest_of

_PIECE = 32 << 20  # bytes on their way at once, for each node


@dataclass(frozen=True)
class Sent:
    """A checkpoint's folder on the node of the run's own process."""

    folder: str
    files: tuple[tuple[str, int], ...]  #: names and sizes; first what the digest is of, in its order
    digested: int  #: how many of these
    digest: str
    node: str  #: Ray's id of it

    def here(self) -> Path:
        """The folder with these files on this node; other workers wait while one fetches. Raises CheckpointError."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if ray.get_runtime_context().get_node_id() == self.node:
            return Path(self.folder)
        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        piece = ray.remote(_piece).options(num_cpus=0, scheduling_strategy=there)
        return self.fetched(lambda name, start: ray.get(piece.remote(f"{self.folder}/{name}", start)))

    def fetched(self, read: Callable[[str, int], Any]) -> Path:
        """The folder in this machine's cache, filled by `read`, which is asked for a file's bytes from a place on."""
        folder = cache_folder() / f"sent-{self.digest[:32]}"
        with _alone(folder):
            if folder.is_dir():
                return folder
            partial = folder.with_name(f".partial-{folder.name}")
            shutil.rmtree(partial, ignore_errors=True)  # what one that was killed left
            partial.mkdir()
            for name, size in self.files:
                with (partial / name).open("wb") as file:
                    while (start := file.tell()) < size:
                        if not file.write(read(name, start)):
                            break
            got = digest_of(partial / name for name, _ in self.files[: self.digested])
            if got != self.digest:
                shutil.rmtree(partial)
                raise CheckpointError(
                    f"{self.folder} must stay as it is while a run uses it: it had the digest {self.digest[:12]} when "
                    f"the run was planned, and has {got[:12]} now. Run the job again, with other weights into another "
                    "output."
                )
            partial.rename(folder)
        return folder


def send(folder: Path, weights: tuple[Path, ...], digest: str) -> Sent:
    """Have a checkpoint's files, as checkpoint.inspect found them, sent from this node to others as they need them."""
    import ray

    digested = [folder / "config.json", *weights]
    files = [*digested, *sorted(folder.glob("*.index.json"))]
    return Sent(
        str(folder),
        tuple((file.name, file.stat().st_size) for file in files),
        len(digested),
        digest,
        ray.get_runtime_context().get_node_id(),
    )


def _piece(path: str, start: int) -> np.ndarray:
    return np.fromfile(path, np.uint8, _PIECE, offset=start)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else on this machine does this for that folder at the same time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("wb")
    except OSError as error:
        raise CheckpointError(
            f"Checkpoints that are fetched are kept in {folder.parent}, where this user can't write on this node "
            f"({error.strerror}). Set PERCEIVER_CACHE on all nodes to a folder where it can."
        ) from error
    with lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # the kernel lets go of it when its process ends, however that happens
        yield
