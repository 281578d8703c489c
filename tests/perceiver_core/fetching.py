"""Checkpoints that are fetched: what is told of it, and what is refused."""

import pytest

from perceiver_core import CheckpointError
from perceiver_core.sources import checkpoint_folder


def refuses(text, path, **options):
    with pytest.raises(CheckpointError, match=text):
        checkpoint_folder(path, **options)


class Steps:
    """Remembers what it was told."""

    def __init__(self):
        self.total = 0
        self.seen = []

    def stage(self, name, total):
        assert name == "MB of the checkpoint"
        self.total = total

    def at(self, done):
        self.seen.append(done)
