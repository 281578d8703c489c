"""One root for all errors that are meant for people: each of ours has it, says when it is raised, and travels."""

import ast
import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from ray import cloudpickle

import jobs.errors
from cluster import ClusterError
from jobs.cli.run import ending
from jobs.errors import (
    ErrorBudgetError,
    LeaseError,
    OutputError,
    SpecError,
    StalledError,
    TargetError,
    exit_code,
)
from perceiver_core import PerceiverError
from pipelines.errors import DecodeCrash, DecodeError
from tests.test_house import ROOMS, ROOT

#: Those that have no root, and why.
OTHERS = {
    "cluster.errors.ClusterError": "cluster imports nothing of ours; jobs makes TargetErrors of it",
    "cluster.errors.ConnectionLostError": "a ClusterError, as it is raised by a cluster that does not answer",
    "cluster.kuberay.api.ApiError": "a ClusterError, as it is raised of what Kubernetes answers",
    "pipelines.decode_child.ReadError": "stays in the decoder's process: its parent raises what it knows itself",
    "pipelines.wire.GoneError": "a signal between the channel and the decoder, which says what died of what",
    "pipelines.wire.LateError": "a signal between the channel and the decoder, which says what took too long",
}


def modules() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def found() -> dict[str, type[BaseException]]:
    """Every exception class of ours by its full name. Modules are imported only where they may define one."""
    classes: dict[str, type[BaseException]] = {}
    for name, path in modules():
        named = {
            node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
        }
        held = vars(importlib.import_module(name)) if named else {}
        for kind in (held.get(one) for one in named):
            if isinstance(kind, type) and issubclass(kind, BaseException):
                classes[f"{name}.{kind.__name__}"] = kind
    return classes


CLASSES = found()


def test_all_are_found() -> None:
    assert len(CLASSES) > 25
    assert CLASSES["jobs.document.SpecError"] is SpecError
    assert OTHERS.keys() <= CLASSES.keys(), "the list names what is not there any more"


@pytest.mark.parametrize("name", CLASSES)
def test_each_has_the_root(name: str) -> None:
    assert issubclass(CLASSES[name], PerceiverError) != (name in OTHERS)


@pytest.mark.parametrize("name", CLASSES)
def test_each_says_when_it_is_raised(name: str) -> None:
    said = vars(CLASSES[name]).get("__doc__") or ""
    assert len(said.split()) >= 4, f"{name} needs a docstring that says when it is raised"
    assert said.strip().endswith(".")


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("travel", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_each_crosses_processes_whole(name: str, travel: Any) -> None:
    kind = CLASSES[name]
    text = "expected this; got that; do so."
    error = kind(text, "digest", "Other") if issubclass(kind, DecodeError) else kind(text)
    error.add_note("a note")
    arrived = travel.loads(travel.dumps(error))
    assert type(arrived) is kind
    assert str(arrived) == str(error) == text
    assert vars(arrived) == vars(error)
    assert arrived.__notes__ == ["a note"]


def test_what_a_decoder_knows_of_a_crash_travels() -> None:
    crash = DecodeCrash("died", "0123")
    crash.killed = True
    arrived = pickle.loads(pickle.dumps(crash))
    assert (str(arrived), arrived.digest, arrived.kind, arrived.killed) == (
        "died",
        "0123",
        "DecodeCrash",
        True,
    )


def test_builtin_bases_are_kept() -> None:
    """Hugging Face's callers expect a ValueError of a checkpoint, ours an OSError of an output."""
    assert issubclass(jobs.errors.CheckpointError, ValueError)
    assert issubclass(SpecError, ValueError)
    assert issubclass(OutputError, OSError)
    assert issubclass(LeaseError, OSError)
    assert OutputError("no room").errno is None


def test_all_that_a_caller_meets_has_the_root() -> None:
    met = [vars(jobs.errors)[name] for name in jobs.errors.__all__]
    assert all(issubclass(one, PerceiverError) for one in met if isinstance(one, type))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("x"), 2), (LeaseError("x"), 2), (jobs.errors.InputError("x"), 2), (ErrorBudgetError("x"), 4),
        (OutputError("x"), 5), (StalledError("x"), 5), (TargetError("x"), 5), (jobs.errors.CheckpointError("x"), 5),
        (RuntimeError("x"), 5), (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_of_the_cluster_becomes_one_of_the_root() -> None:
    error = ClusterError("Ray was imported before its switch was set.")
    error.add_note("Ray's logs of this run are in a folder.")
    with pytest.raises(PerceiverError, match=r"^Ray was imported before its switch was set\.") as caught:  # noqa: SIM117
        with jobs.errors.of_cluster():
            raise error
    assert type(caught.value) is TargetError
    assert caught.value.__notes__ == ["Ray's logs of this run are in a folder."]
    assert caught.value.__cause__ is error


def ended(error: BaseException) -> tuple[int, str]:
    @click.command()
    def command() -> None:
        with ending("perceive run job.yaml", as_json=False):
            raise error

    done = CliRunner().invoke(command)
    return done.exit_code, done.output


def test_an_unknown_error_shows_its_type_and_ours_their_text() -> None:
    assert ended(KeyError("shard")) == (5, "KeyError: 'shard'\n\nTo resume: perceive run job.yaml\n")
    noted = StalledError("Nothing moved.")
    noted.add_note("Ray's logs of this run are in a folder.")
    assert ended(noted) == (
        5,
        "Nothing moved.\nRay's logs of this run are in a folder.\nTo resume: perceive run job.yaml\n",
    )
    assert ended(SpecError("No such job file: x.yaml.")) == (2, "No such job file: x.yaml.\n")
    assert ended(ErrorBudgetError("Too many.")) == (4, "Too many.\n")
    assert ended(KeyboardInterrupt()) == (130, "Interrupted. To resume: perceive run job.yaml\n")
