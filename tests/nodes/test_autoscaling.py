"""A run that asks Ray's autoscaler for nodes, as in Kubernetes it asks KubeRay's for pods."""

import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from cluster.joined import joined_ray
from cluster.local import alive
from tests.nodes.raylets import Raylets
from tests.nodes.scaling import Scaling
from tests.nodes.work import Work
from tests.pipelines.staging import save_head

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]


def waited(condition: Callable[[], object], seconds: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds
        time.sleep(0.5)
    return time.monotonic() - began


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def workers_alive() -> int:
    """How many nodes of the cluster that this process has joined are no head."""
    return sum(cpus > 0 for cpus, _, _ in alive().nodes)


def test_nodes_come_while_there_is_work_and_go_after_it(tmp_path: Path) -> None:
    work = Work(tmp_path, save_head(tmp_path / "model", "PerceiverForSequenceClassification"), texts=60)
    work.set_pace(1.0)
    job = work.job("scaled")
    workers = {"cpus": 2, "min_replicas": 1, "max_replicas": 3}
    kubernetes = {"image": f"registry.example/perceiver-batch@sha256:{'0' * 64}", "cpu_workers": workers}
    job.write_text(yaml.safe_dump(yaml.safe_load(job.read_text()) | {"kubernetes": kubernetes}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scaling = Scaling(work, port, least=1, most=3)
    try:
        waited(lambda: listens(port), 60)
        with joined_ray(scaling.address):
            waited(lambda: workers_alive() == 1, 60)
            run = scaling.start(job)
            began = time.time()
            run.end(timeout_s=400)
            changed = work.events("scaled", "nodes_changed")
            full = next(event for event in changed if event["nodes"] == 4)  # with the head
            assert full["workers"]["predict"] == 2  # of three nodes, the work of two
            after = datetime.fromisoformat(full["time"]).timestamp() - began
            print(f"nodes asked for: all there {after:.0f} s after the start")
            gone = waited(lambda: workers_alive() == 1, 120)
            print(f"after the run's end: all but the least gone after {gone:.0f} s")
    finally:
        scaling.close()
    work.set_pace(0)
    raylets = Raylets(work, nodes=2)
    try:
        raylets.start("calm").end()
    finally:
        raylets.close()
    assert work.table("scaled").equals(work.table("calm"))
