"""A Ray cluster that is there already, joined for the length of a run by a process of one of its nodes."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from cluster.beside import beside
from cluster.errors import ClusterError
from cluster.local import Resources, alive, own_sigterm

_LOOK_S = 5.0
_LEAVING_S = 15.0  # a killed driver's workers were gone after 1 to 3 s


@contextmanager
def joined_ray(address: str, lost: Callable[[str], None] = lambda name: None) -> Iterator[Resources]:
    """Join the cluster at an address (`auto`: this node's) for a `with` block. Raises ClusterError if there is none.

    `lost` is called, in another thread, when its control store is gone, and should end the process: nothing
    that has to do with Ray returns then.
    """
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # what it logs as an error it also raises
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # see cluster/local.py
    import ray

    try:
        with own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"There is no Ray cluster at {address} that this process could join: {error} It must run on one of the "
            "cluster's nodes; from elsewhere, use perceive submit --target ray."
        ) from error
    try:
        with beside(partial(_silent, lost=lost)):
            yield replace(alive(), held=_held())
    finally:
        ray.shutdown()


def _held() -> tuple[float, float]:
    """The CPUs and GPUs that others use; what somebody who has just died leaves behind is waited for."""
    import ray

    deadline = time.monotonic() + _LEAVING_S
    while True:
        have, free = ray.cluster_resources(), ray.available_resources()
        cpus, gpus = (max(0.0, have.get(name, 0.0) - free.get(name, 0.0)) for name in ("CPU", "GPU"))
        if cpus + gpus < 1e-6 or time.monotonic() > deadline:
            return cpus, gpus
        time.sleep(0.5)


def _silent(ended: threading.Event, lost: Callable[[str], None]) -> None:
    """Call `lost` once the control store has not answered for 45 s."""
    import ray

    silent = 0.0
    while not ended.wait(_LOOK_S):
        answered = threading.Event()

        def ask(answered: threading.Event = answered) -> None:
            ray.nodes()
            answered.set()

        threading.Thread(target=ask, daemon=True).start()
        silent = 0.0 if answered.wait(_LOOK_S) else silent + 2 * _LOOK_S
        if silent >= 45 and not ended.is_set():
            lost("control store")
            return
