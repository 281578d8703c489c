"""How many workers each stage has, sized so that they can all run beside each other, also when a node is lost."""

from collections.abc import Sequence
from dataclasses import dataclass

from perceiver_core.errors import PerceiverError

Node = tuple[float, float]  # CPUs and GPUs


@dataclass(frozen=True)
class Pools:
    """How many workers each stage has, and what each of them asks Ray for."""

    decode_workers: int
    decode_cpus: float
    predict_workers: int
    predict_cpus: float
    predict_gpus: float
    write_cpus: float
    feed_cpus: float

    def at_once(self, cpus: float, shards: int) -> dict[str, int]:
        """How many workers each stage has at most, of so many CPUs, over so many shards: writers take what is left."""
        decode, predict = (max(1, min(n, shards)) for n in (self.decode_workers, self.predict_workers))
        left = cpus - decode * self.decode_cpus - predict * self.predict_cpus - self.feed_cpus
        write = max(1, min(int(left / self.write_cpus + 1e-9), shards))
        return {"decode": decode, "predict": predict, "write": write}


class PoolError(PerceiverError, ValueError):
    """The workers asked for can't run beside each other."""


def fit_pools(nodes: Sequence[Node], decode_workers: int | None, predict_workers: int | None) -> Pools:
    """Size the pools for these nodes less the largest, or for one node; a share is left for feeding and writing.

    Pools that take every CPU hang a run in silence. Raises PoolError if the workers that the job asks for leave none.
    """
    nodes = [node for node in nodes if any(node)] or [*nodes]
    cpus, gpus = lasting(nodes)
    several, count = len(nodes) > 1, max(1, len(nodes) - 1)
    predict = predict_workers or int(gpus) or count
    if gpus and predict > gpus:
        raise PoolError(
            f"compute.predict_workers asks for {predict} GPUs, there are {gpus:g}{_after(nodes)}: set it to at most "
            f"{gpus:g}."
        )
    share = cpus / count
    decode_cpus, write_cpus, feed_cpus = min(1.0, share / 4), min(0.5, share / 8), min(0.1, share / 32)
    if not several:
        predict_cpus = min(1.0, cpus / 4 / predict) if gpus else cpus / 2 / predict
        kept = predict * predict_cpus
    elif gpus:
        # Where a GPU is free a worker can start, whatever took the CPUs beside it.
        predict_cpus = 0.0
        kept = min(predict, cpus / 4) + (count - 1) * decode_cpus
    else:
        # Half is the model's. It asks for less, for what is free may be in pieces: whatever order all of these are
        # placed in, the last finds room on some node if a worker's share for each other node stays free.
        predict_cpus = min(1.0, cpus / 4 / max(predict, count))
        kept = cpus / 2
    spare = cpus - kept - write_cpus - feed_cpus
    decode = decode_workers or max(1, int(spare / decode_cpus))
    if decode * decode_cpus > spare:
        raise PoolError(
            f"compute.decode_workers asks for {decode} workers of {decode_cpus:g} CPUs, but of {cpus:g} CPUs"
            f"{_after(nodes)} {spare:g} are left beside feeding, predicting and writing: set it to at most "
            f"{int(spare / decode_cpus)}."
        )
    return Pools(decode, decode_cpus, predict, predict_cpus, 1.0 if gpus else 0.0, write_cpus, feed_cpus)


def lasting(nodes: Sequence[Node]) -> Node:
    """The CPUs and GPUs that pools are sized for: what is left without the largest node."""
    nodes = [node for node in nodes if any(node)] or [*nodes]
    return _left([cpus for cpus, _ in nodes]), _left([gpus for _, gpus in nodes])


def _left(amounts: Sequence[float]) -> float:
    """What there is without the node that has most of it; all, where no other has any."""
    return sum(amounts) - max(amounts) or sum(amounts)


def _after(nodes: Sequence[Node]) -> str:
    return f" without the largest of {len(nodes)} nodes" if len(nodes) > 1 else ""
