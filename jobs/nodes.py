"""A run on a cluster's nodes: what it is told of them, pools that follow them, a checkpoint that is sent to them."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.kuberay import render
from cluster.local import alive
from jobs.events import Events
from jobs.resolve import Resolved, used_of
from jobs.spec import SpecError
from pipelines.pools import Node, Pools, refit
from pipelines.stages import ModelPlan

if TYPE_CHECKING:
    from pipelines.growing import Growth


def nodes_of(told: Iterable[tuple[float, float, str]]) -> tuple[Node, ...]:
    """Nodes as a target tells of them."""
    return tuple(Node(*node) for node in told)


def threads(resolved: Resolved) -> int:
    """What each worker that holds the model computes with: its share of the largest node, where all are alike."""
    nodes = [node.cpus for node in resolved.nodes if node.cpus]
    each = math.ceil(resolved.pools.predict_workers / len(nodes))
    return max(1, int(max(nodes)) // each)


def sent_to_all(resolved: Resolved) -> ModelPlan:
    """The model's plan where workers may be on other nodes than the checkpoint that was inspected. Needs Ray."""
    from pipelines.sending import send

    found = resolved.checkpoint
    return replace(resolved.model, sent=send(found.path, found.weights, found.digest))


def growth(resolved: Resolved, workers: dict[str, int], shards: int, events: Events) -> "Growth":
    """How the run's pools follow the nodes of the cluster that this process has joined; `workers` are kept true."""
    from pipelines.growing import Growth

    def changed(now: Pools) -> None:
        nodes = alive().nodes
        workers.update(now.at_once(sum(cpus for cpus, _, _ in nodes), shards))
        events.note("nodes_changed", nodes=len(nodes), workers=dict(workers))

    return Growth(lambda: regrown(resolved, nodes_of(alive().nodes)), changed, bounds_of(resolved))


def bounds_of(resolved: Resolved) -> tuple[Node, ...]:
    """The nodes that an autoscaler may give the run: known of the cluster that its job describes alone."""
    settings = resolved.job.kubernetes
    in_it = os.environ.get("PERCEIVER_TARGET", "").startswith("kuberay")
    if not in_it or settings is None or not settings.autoscaling:
        return ()
    return used_of(resolved.job, nodes_of(render.nodes(settings)))


def regrown(resolved: Resolved, nodes: Sequence[Node]) -> Pools:
    """The run's pools as its nodes are now."""
    asked = resolved.job.compute
    try:
        used = used_of(resolved.job, nodes)
    except SpecError:  # what it needs is gone: its workers wait until it is back
        return resolved.pools
    return refit(
        resolved.pools,
        used,
        asked.decode_workers,
        asked.predict_workers,
        gpus_per_worker=asked.gpus_per_worker,
        held=resolved.held,
    )
