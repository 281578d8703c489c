"""Stores that do not answer, while items are probed and decoded: without Ray."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest

from pipelines import trouble
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.errors import ItemError
from pipelines.items import Item
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sources import Opened
from pipelines.sources.files import Files, FilesReader
from pipelines.stages import Decode, notes_of, split_block
from pipelines.transient import UnavailableError
from pipelines.trouble import persistently
from tests.clips import write_clip
from tests.conftest import tiny_config
from tests.pipelines.copying import Copying
from tests.pipelines.told import Told

CONFIG = tiny_config()


class Flaky(FilesReader):
    """Opening what is called so raises what is next in line, if anything is."""

    def __init__(self, name: str, errors: list[Exception], always: Exception | None = None) -> None:
        super().__init__(VIDEO, Limits())
        self.name, self.errors, self.always, self.opened, self.closed = name, errors, always, 0, 0

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        if item["uri"].endswith(self.name):
            self.opened += 1
            if self.errors or self.always:
                raise self.errors.pop(0) if self.errors else self.always  # type: ignore[misc]
        with super().open(item) as opened:
            yield opened

    def close(self) -> None:
        self.closed += 1


@dataclass(frozen=True)
class FlakySource(Files):
    made: Any = None

    def reader(self) -> FilesReader:
        return self.made  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "a.mp4", frames=16 * 3, audio_codec="aac")
    write_clip(folder / "b.mp4", frames=16 * 2, audio_codec="aac")
    return folder


@pytest.fixture(scope="module")
def plan(media: Path) -> pa.Table:
    return planned(Files((str(media),), VIDEO))


def planned(source: Files, **more: Any) -> pa.Table:
    with closing(Decoder(Copying(top_k=2), CONFIG, Limits())) as decoder:
        return cut_shards(list_and_probe(source, [decoder], **more), 64)


def decoded(plan: pa.Table, reader: Flaky, meter: Meter = Meter(), patience_s: float = 0.1) -> pa.Table:  # noqa: B008
    decode = Decode(
        Copying(top_k=2), CONFIG, FlakySource((), VIDEO, made=reader), Limits(), meter, patience_s
    )
    with closing(decode.decoder):
        return decode.shard(shards(plan)[0])


def without_notes(block: pa.Table) -> pa.Table:
    return block.drop_columns(["notes"])


def test_what_fails_in_passing_is_read_again_and_told(plan: pa.Table, media: Path) -> None:
    meter, calm = Told(), decoded(plan, Flaky("none", []))
    reader = Flaky("a.mp4", [ConnectionResetError("reset by peer"), TimeoutError("no answer")])
    block = decoded(plan, reader, meter, patience_s=60)
    assert without_notes(block).equals(without_notes(calm))
    assert notes_of(block).keys() == {"decode_s", "decoded_bytes", "decode_peak"}
    assert meter.counts.read() == {"decode": 5}
    heard = meter.heard()
    assert [{**told, "time": 0, "wait_s": 0} for told in heard] == [
        {"kind": "retrying", "time": 0, "stage": "decode", "uri": str(media / "a.mp4"), "error": error,
         "message": message, "wait_s": 0}
        for error, message in (("ConnectionResetError", "reset by peer"), ("TimeoutError", "no answer"))
    ]  # fmt: skip
    assert all(told["wait_s"] > 0 for told in heard)
    assert reader.closed == 2  # what it held on to came by a connection that is no more


def errors_of(block: pa.Table) -> list[ItemError]:
    return [ItemError.from_json(text) for text in split_block(block)[1]["error"].to_pylist()]


def test_an_object_that_can_not_be_read_in_a_store_that_answers_is_quarantined(
    plan: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = {row["uri"]: row["version"] for row in plan.to_pylist()}
    monkeypatch.setattr(trouble, "version_now", version.__getitem__)
    block = decoded(plan, Flaky("a.mp4", [], ConnectionResetError("reset by peer")))
    windows, _ = split_block(block)
    assert windows["window"].to_pylist() == [0, 1]  # the other item's
    [error] = errors_of(block)
    assert (error.stage, error.kind, error.message) == ("read", "ConnectionResetError", "reset by peer")


def _other(uri: str) -> str:
    return "other"


def _gone(uri: str) -> str:
    raise FileNotFoundError(uri)


def _silent(uri: str) -> str:
    raise ConnectionRefusedError("nobody there.")


@pytest.mark.parametrize(
    ("now", "what"), [(_other, r"has changed: expected version .+, got other"), (_gone, "is gone")]
)
def test_an_object_that_has_changed_is_quarantined_as_such(
    plan: pa.Table, monkeypatch: pytest.MonkeyPatch, now: Callable[[str], str], what: str
) -> None:
    monkeypatch.setattr(trouble, "version_now", now)
    [error] = errors_of(decoded(plan, Flaky("a.mp4", [], TimeoutError("slow"))))
    assert (error.stage, error.kind) == ("read", "SourceError")
    assert re.fullmatch(
        rf".*a\.mp4 {what}, since the run was planned \(TimeoutError: slow\)\. Run the job again into another output\.",
        error.message,
    )


SILENCE = (
    r"a\.mp4 could not be read for 0\.1 s \(TimeoutError: slow\), and its store does not say what has become of it "
    r"\(ConnectionRefusedError: nobody there\)\. Check the network, the store and its credentials, then run the job "
    r"again: it resumes\."
)


def test_a_store_that_is_silent_ends_the_attempt(plan: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "version_now", _silent)
    with pytest.raises(UnavailableError, match=SILENCE):
        decoded(plan, Flaky("a.mp4", [], TimeoutError("slow")))


@pytest.mark.parametrize("error", [ValueError("no"), FileNotFoundError("gone"), PermissionError("no")])
def test_what_is_for_good_is_never_tried_again(plan: pa.Table, error: Exception) -> None:
    reader = Flaky("a.mp4", [], error)
    [found] = errors_of(decoded(plan, reader, patience_s=60))
    assert (found.stage, found.kind, reader.opened) == ("decode", type(error).__name__, 1)


def test_patience_begins_with_the_first_failure_and_lasts_for_some_tries() -> None:
    tries = []

    def read() -> None:
        tries.append(time.monotonic())
        time.sleep(0.06)  # more than all patience
        raise TimeoutError("slow")

    with pytest.raises(TimeoutError):
        persistently(read, 0.05, lambda error, wait_s: None)
    assert len(tries) == 4


def test_probing_waits_for_a_store_as_well(
    media: Path, plan: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def tell(kind: str, **fields: Any) -> None:
        told.append({"kind": kind, **fields})

    reader = Flaky("a.mp4", [ConnectionResetError("reset")])
    assert planned(FlakySource((str(media),), VIDEO, made=reader), tell=tell).equals(plan)
    assert [(one["kind"], one["stage"], one["error"]) for one in told] == [
        ("retrying", "probe", "ConnectionResetError")
    ]
    reader = Flaky("a.mp4", [], TimeoutError("slow"))
    [error] = [one for one in planned_errors(FlakySource((str(media),), VIDEO, made=reader)) if one]
    assert (error.stage, error.kind) == ("read", "TimeoutError")
    monkeypatch.setattr(trouble, "version_now", _silent)
    with pytest.raises(UnavailableError, match=SILENCE):
        planned(FlakySource((str(media),), VIDEO, made=reader), patience_s=0.1)


def planned_errors(source: Files) -> list[ItemError | None]:
    errors = planned(source, patience_s=0.1)["error"].to_pylist()
    return [ItemError.from_json(text) if text else None for text in errors]


def test_nobody_waits_for_a_store_once_planning_is_given_up(media: Path) -> None:
    source = FlakySource((str(media),), VIDEO, made=Flaky("a.mp4", [], TimeoutError("slow")))
    waiting = Event()

    def items() -> Iterator[Item]:
        yield next(source.items())
        assert waiting.wait(60)
        raise KeyboardInterrupt

    with closing(Decoder(Copying(top_k=2), CONFIG, Limits())) as decoder:
        probing = list_and_probe(
            source, [decoder], items(), lambda kind, **fields: waiting.set(), patience_s=600
        )
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(probing)
    assert time.monotonic() - began < 20
