"""Targets: where a command can be sent to run. One file each: this machine, a Ray cluster's job API.

What all promise: an id is submitted once, however often and by however many it is tried; what became of it, its output
and a way to stop it are there after the client is gone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from cluster.local import Node

State = Literal["pending", "running", "succeeded", "failed", "stopped"]
DONE = (0, 3)  #: exit codes of a command that did what it was to do, all of it or all but what can't be done
ENDED: tuple[State, ...] = ("succeeded", "failed", "stopped")


@dataclass(frozen=True)
class Submission:
    """A command to run."""

    id: str  #: [a-z0-9-]+, nobody else's
    command: tuple[str, ...]  #: run in `folder`, or in a copy of it
    folder: Path  #: what the command reads
    packages: tuple[Path, ...] = ()  #: Python packages that go along; without any, the target has them
    #: Shown to all who may look at the target: no secrets.
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """What a target knows of a submission."""

    id: str
    state: State
    message: str = ""  #: why it is not what was hoped for, in the target's own words
    exit_code: int | None = None  #: of the command, once it has ended and where that is known


class Target(Protocol):
    """A frozen dataclass. ClusterError of whatever can't be reached."""

    @property
    def name(self) -> str:
        """How the command line calls it, with its address where it has one."""

    def nodes(self) -> tuple[Node, ...]:
        """What each node has."""

    def submit(self, submission: Submission) -> bool:
        """Start it; False if there is a submission of that id already, which stays as it is."""

    def look(self, id: str) -> Sent | None:
        """What became of it; None if it was never there, or is forgotten."""

    def logs(self, id: str, follow: bool = False) -> Iterator[str]:
        """What it wrote, as it comes, to stdout and stderr; with `follow` until it ends."""

    def stop(self, id: str) -> None:
        """Ask it to stop, as Ctrl-C does; nothing if it has ended."""
