"""A Kubernetes API of this process for each test, and a context that leads there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kuberay.settings import Kubernetes
from cluster.kuberay.target import KubeRayTarget
from tests.cluster.kuberay.server import Server

IMAGE = f"registry.example.com/perceiver-batch@sha256:{'0' * 64}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.fixture
def target(server: Server) -> KubeRayTarget:
    return KubeRayTarget(
        "here", "batch", Kubernetes(image=IMAGE, submission_mode="SidecarMode"), patience_s=5.0
    )
