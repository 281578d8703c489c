"""A checkpoint that is sent to a node: fetched once, whatever dies or waits meanwhile, and never another one."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perceiver_core.checkpoint import inspect, load
from perceiver_core.sources import CheckpointError
from pipelines import sending
from pipelines.sending import Sent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sending, "_PIECE", 1000)
    return tmp_path / "cache/checkpoints"


def sent_of(checkpoint: Path) -> Sent:
    found = inspect(checkpoint)
    files = [checkpoint / "config.json", *found.weights]
    return Sent(
        str(checkpoint), tuple((file.name, file.stat().st_size) for file in files), 2, found.digest, "node"
    )


def reader(sent: Sent, log: Path | None = None) -> Any:
    """What Ray does, noted."""

    def read(name: str, start: int) -> np.ndarray:
        if log:
            with log.open("a") as file:
                file.write(f"{name} {start}\n")
        return sending._piece(f"{sent.folder}/{name}", start)

    return read


def test_what_arrives_is_the_checkpoint_mapped_from_the_cache(checkpoint: Path, cache: Path) -> None:
    sent = sent_of(checkpoint)
    folder = sent.fetched(reader(sent))
    assert folder.parent == cache
    assert inspect(folder).digest == sent.digest
    assert load(folder).config == load(checkpoint).config
    assert sorted(path.name for path in cache.iterdir()) == [folder.name, f"{folder.name}.lock"]


def _fetch(sent: Sent, log: Path) -> None:
    sending._PIECE = 1000
    sent.fetched(reader(sent, log))


def test_workers_of_one_node_fetch_it_once(checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    sent, log = sent_of(checkpoint), tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_fetch, args=(sent, log)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == sum(-(-size // 1000) for _, size in sent.files)


def test_one_that_is_killed_while_it_fetches_is_in_nobodys_way(
    checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    sent = sent_of(checkpoint)

    def hang(name: str, start: int) -> np.ndarray:
        if start == 3000:
            time.sleep(60)
        return reader(sent)(name, start)

    child = os.fork()
    if not child:
        try:
            sent.fetched(hang)
        finally:
            os._exit(0)
    partial = cache / f".partial-sent-{sent.digest[:32]}/model.safetensors"
    deadline = time.monotonic() + 10
    while not partial.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert inspect(sent.fetched(reader(sent))).digest == sent.digest


def test_a_checkpoint_that_changed_since_the_plan_is_refused(
    checkpoint: Path, cache: Path, tmp_path: Path
) -> None:
    sent = sent_of(checkpoint)

    def other(name: str, start: int) -> np.ndarray:
        piece = reader(sent)(name, start).copy()
        piece[0] ^= start == 2000
        return piece

    with pytest.raises(
        CheckpointError, match=r"must stay as it is while a run uses it: it had the digest \w{12} when"
    ):
        sent.fetched(other)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]  # and nothing of it is kept


def test_where_nothing_can_be_kept_it_says_what_to_do(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "file"))
    sent = sent_of(checkpoint)
    with pytest.raises(CheckpointError, match=r"Set PERCEIVER_CACHE on all nodes to a folder where it can\."):
        sent.fetched(reader(sent))
