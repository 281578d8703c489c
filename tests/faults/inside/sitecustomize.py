"""What tests put into the processes of a `perceive run`: Python imports this file where its folder is on PYTHONPATH.

PERCEIVE_FAULTS names a file of orders, as JSON; without it nothing happens, as in decoders' processes, which get no
variables of ours. Everything that is passed is a line in the log that the orders name, whichever process passes it.
Light: it is imported by Ray's own processes as well.
"""

import os
import sys

_ORDERS = os.environ.get("PERCEIVE_FAULTS")


def _role() -> str | None:
    """Which process of a run this is; None of those that never pass a point."""
    words = sys.orig_argv
    if any(word.endswith("default_worker.py") for word in words):
        return "worker"
    return "driver" if any(os.path.basename(word) == "perceive" for word in words) else None


def _install(path: str, role: str) -> None:
    import fcntl
    import importlib.abc
    import importlib.util
    import json
    import signal
    import time

    with open(path) as file:
        orders = json.load(file)

    def note(*words: object) -> int:
        """Add a line; how often it is there now, by whatever process."""
        text = "\t".join(map(str, words))
        with open(orders["log"], "a+") as log:
            fcntl.flock(log, fcntl.LOCK_EX)
            log.write(f"{text}\t{os.getpid()}\n")
            log.flush()
            log.seek(0)
            return sum(line.rpartition("\t")[0] == text for line in log)

    def passing(point: str, shard: object = "") -> None:
        nth = note(role, point)
        if shard != "":
            note("shard", point, shard)
        for pace in orders["paces"]:
            if pace["point"] == point:
                time.sleep(pace["seconds"])
        for order in orders["stops"]:
            if (order["role"], order["point"], order["nth"]) != (role, point, nth):
                continue
            if order["how"] == "kill":
                note("killed", role, point)
                os.kill(os.getpid(), signal.SIGKILL)
            note("stopped", role, point)
            os.kill(os.getpid(), signal.SIGSTOP)
            note("woke", role, point)

    from pipelines import commit_points

    commit_points.passing = passing

    def wrap(stages: object) -> None:
        shard, predict = stages.Decode.shard, stages.Predict.__call__  # type: ignore[attr-defined]

        def decoding(self, spans):  # type: ignore[no-untyped-def]
            passing("decode begun", spans["shard"][0].as_py())
            return shard(self, spans)

        def predicting(self, block):  # type: ignore[no-untyped-def]
            passing("predict begun", block["shard"][0].as_py())
            return predict(self, block)

        stages.Decode.shard, stages.Predict.__call__ = decoding, predicting  # type: ignore[attr-defined]

    class Wrapping(importlib.abc.MetaPathFinder):
        """Stages are no commit points, but their work is what a kill costs: they are wrapped once they are there."""

        def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
            if name != "pipelines.stages":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            execute = spec.loader.exec_module

            def execute_and_wrap(module: object) -> None:
                execute(module)
                wrap(module)

            spec.loader.exec_module = execute_and_wrap
            return spec

    sys.meta_path.insert(0, Wrapping())


if _ORDERS and (_who := _role()):
    _install(_ORDERS, _who)
