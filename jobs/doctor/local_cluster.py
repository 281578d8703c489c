"""Ray: that it starts on this machine, is reached by nobody else, runs something, and stops."""

import time
from collections.abc import Iterator

import psutil

from cluster import ClusterError
from cluster.local import local_ray
from jobs.doctor.check import Check

_LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def ray_here() -> Iterator[Check]:
    """One Ray, for one task."""
    began = time.monotonic()
    try:
        with local_ray(cpus=1, gpus=0):
            import ray

            started = time.monotonic() - began
            answer = ray.get(ray.remote(_three).remote(), timeout=60)
            open_to = _listening() - _LOOPBACK
            stopping = time.monotonic()
        stopped = time.monotonic() - stopping
    except ClusterError as error:
        yield Check("ray", "failed", str(error), "Unset what it names, and look again.")
        return
    if answer != 3:
        yield Check("ray", "failed", f"It answered {answer!r}, not 3.", "Install ray anew.")
    elif open_to:
        advice = (
            "Unset RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER before perceive starts; report it where it is unset."
        )
        yield Check(
            "ray", "failed", f"It listens on {', '.join(sorted(open_to))}, not on 127.0.0.1 alone.", advice
        )
    else:
        found = (
            f"It started in {started:.1f} s on 127.0.0.1 alone, ran a task, and stopped in {stopped:.1f} s."
        )
        yield Check("ray", "ok", found)


def _three() -> int:
    return 3


def _listening() -> set[str]:
    """The addresses that this process and its own listen on."""
    me = psutil.Process()
    return {
        connection.laddr.ip
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
