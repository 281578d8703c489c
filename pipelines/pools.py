"""How many workers each stage has, sized so that they can all run beside each other, also when a node is lost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from perceiver_core.errors import PerceiverError

_TINY = 1e-9  # what sums of shares may be off by


class Node(NamedTuple):
    """What a node has, or what is held of several."""

    cpus: float
    gpus: float = 0.0
    accelerator: str = ""  #: which GPUs, by Ray's label ray.io/accelerator-type


NOTHING = Node(0.0)


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
        write = max(1, min(int(left / self.write_cpus + _TINY), shards))
        return {"decode": decode, "predict": predict, "write": write}


class PoolError(PerceiverError, ValueError):
    """The workers asked for can't run beside each other."""


def fit_pools(
    nodes: Sequence[Node],
    decode_workers: int | None,
    predict_workers: int | None,
    *,
    gpus_per_worker: float = 1.0,
    held: Node = NOTHING,
    grows: bool = False,
    like: Pools | None = None,
) -> Pools:
    """Size the pools for these nodes less the largest, or for one node; a share is left for feeding and writing.

    Of this, somebody else holds `held`. Where a cluster `grows`, its only node is sized as one of several. `like` has
    what a worker asks for, where that is so already. Pools that take every CPU hang a run in silence. Raises PoolError
    if the workers that the job asks for leave none.
    """
    nodes = _with_room(nodes)
    cpus, gpus, _ = lasting(nodes)
    several, count = len(nodes) > 1 or grows, max(1, len(nodes) - 1)
    predict = predict_workers or count
    if gpus:
        predict = _on_gpus(nodes, predict_workers, gpus_per_worker, held)
    share, free = cpus / count, cpus - held.cpus
    if not several:
        predict_cpus = min(1.0, free / 4 / predict) if gpus else free / 2 / predict
    elif gpus:
        # Where a GPU is free a worker can start, whatever took the CPUs beside it.
        predict_cpus = 0.0
    else:
        # Half is the model's. It asks for less, for what is free may be in pieces: whatever order all of these are
        # placed in, the last finds room on some node if a worker's share for each other node stays free.
        predict_cpus = min(1.0, cpus / 4 / max(predict, count))
    asks = like or Pools(
        decode_workers=1,
        decode_cpus=min(1.0, share / 4),
        predict_workers=predict,
        predict_cpus=predict_cpus,
        predict_gpus=gpus_per_worker if gpus else 0.0,
        write_cpus=min(0.5, share / 8),
        feed_cpus=min(0.1, share / 32),
    )
    if gpus and several:
        kept = min(predict, free / 4) + (count - 1) * asks.decode_cpus
    else:
        kept = predict * asks.predict_cpus if gpus else free / 2
    spare = free - kept - asks.write_cpus - asks.feed_cpus
    if held.cpus and spare < asks.decode_cpus:
        raise PoolError(
            f"Of {cpus:g} CPUs{_after(nodes)} others hold {held.cpus:g}, and what is left is too little for this run "
            "beside them. Run it when they have ended, or give each run so few workers that all fit: "
            "compute.decode_workers, compute.predict_workers."
        )
    decode = decode_workers or max(1, int(spare / asks.decode_cpus))
    if decode * asks.decode_cpus > spare:
        raise PoolError(
            f"compute.decode_workers asks for {decode} workers of {asks.decode_cpus:g} CPUs, but of {cpus:g} CPUs"
            f"{_after(nodes)} {spare:g} are left beside feeding, predicting and writing{_beside(held.cpus)}: set it to "
            f"at most {int(spare / asks.decode_cpus)}."
        )
    return replace(asks, decode_workers=decode, predict_workers=predict)


def refit(
    pools: Pools,
    nodes: Sequence[Node],
    decode_workers: int | None,
    predict_workers: int | None,
    *,
    gpus_per_worker: float = 1.0,
    held: Node = NOTHING,
) -> Pools:
    """The pools of a run as its nodes are now: a worker asks for what it always did, their number changes.

    Nodes that are so small that these workers would be in each other's way are left out; where none are left, or what
    the job asks for doesn't fit any more, the pools stay as they are.
    """
    fit = partial(fit_pools, gpus_per_worker=gpus_per_worker, held=held, grows=True)
    nodes = sorted(_with_room(nodes), reverse=True)
    while nodes:
        try:
            fresh = fit(nodes, decode_workers, predict_workers)
            if all(mine <= its for mine, its in zip(_asked(pools), _asked(fresh), strict=True)):
                return fit(nodes, decode_workers, predict_workers, like=pools)
        except PoolError:  # not on these
            pass
        nodes = nodes[:-1]
    return pools


def only_type(nodes: Sequence[Node], accelerator: str) -> tuple[Node, ...]:
    """The nodes, of which only GPUs of this type count. Raises PoolError if there are none."""
    if not any(node.gpus and node.accelerator == accelerator for node in nodes):
        types = sorted({node.accelerator for node in nodes if node.gpus and node.accelerator})
        if types:
            there = f"the nodes have {', '.join(types)}"
        elif any(node.gpus for node in nodes):
            there = "no node says what its GPUs are (Ray's label ray.io/accelerator-type)"
        else:
            there = "no node has a GPU that may be used"
        raise PoolError(
            f"compute.accelerator asks for {accelerator}, but {there}. Set it to what there is, or leave it out."
        )
    return tuple(node if node.accelerator == accelerator else node._replace(gpus=0.0) for node in nodes)


def lasting(nodes: Sequence[Node]) -> Node:
    """The CPUs and GPUs that pools are sized for: what is left without the largest node."""
    nodes = _with_room(nodes)
    return Node(_left([node.cpus for node in nodes]), _left([node.gpus for node in nodes]))


def _on_gpus(nodes: Sequence[Node], asked: int | None, each: float, held: Node) -> int:
    """How many workers the GPUs have room for, or the number that is asked for. Raises PoolError."""
    seats = [int(node.gpus / each + _TINY) for node in nodes]
    if not any(seats):
        most = max(node.gpus for node in nodes)
        raise PoolError(
            f"compute.gpus_per_worker asks for {each:g} GPUs of one node, but the largest has {most:g}: set it to at "
            f"most {most:g}."
        )
    room = int(_left(seats)) - math.ceil(held.gpus / each - _TINY)
    if room < 1:
        raise PoolError(
            f"Others hold {held.gpus:g} GPUs, and what is left{_after(nodes)} has no room for a worker of {each:g}. "
            "Run it when they have ended, or give each run fewer workers: compute.predict_workers."
        )
    if asked and asked > room:
        raise PoolError(
            f"compute.predict_workers asks for {asked} workers of {each:g} GPUs, there is room for {room}"
            f"{_after(nodes)}{_beside(held.gpus)}: set it to at most {room}."
        )
    return asked or room


def _with_room(nodes: Sequence[Node]) -> list[Node]:
    """Nodes less those with nothing to lend, as a cluster's head often is."""
    return [node for node in nodes if node.cpus or node.gpus] or [*nodes]


def _asked(pools: Pools) -> tuple[float, ...]:
    gpus = (pools.predict_gpus, -pools.predict_gpus)  # neither more nor less
    return (pools.decode_cpus, pools.predict_cpus, pools.write_cpus, pools.feed_cpus, *gpus)


def _left(amounts: Sequence[float]) -> float:
    """What there is without the node that has most of it; all, where no other has any."""
    return sum(amounts) - max(amounts) or sum(amounts)


def _after(nodes: Sequence[Node]) -> str:
    return f" without the largest of {len(nodes)} nodes" if len(nodes) > 1 else ""


def _beside(held: float) -> str:
    return f" and the {held:g} that others hold" if held else ""
