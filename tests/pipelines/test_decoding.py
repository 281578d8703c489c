"""The decoder's process: what it answers, what becomes of an item that it dies of, and what it may have."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from pipelines.contents import VIDEO
from pipelines.decode_child import packed
from pipelines.decoding import Decoder, DecoderError
from pipelines.errors import DecodeCrash, DecodeError, DecodeMemory, DecodeTimeout, ItemError
from pipelines.limits import LimitError, Limits
from pipelines.plan import cut_shards, list_and_probe
from pipelines.sources.files import Files
from pipelines.stages import Decode
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip
from tests.conftest import tiny_config
from tests.pipelines.misbehaving import MODULE, Misbehaving

TASK, CONFIG = MultimodalAutoencoding(top_k=2), tiny_config()
LIMITS = Limits(seconds=20, memory=256 << 20)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """One for the deeds of misbehaving.py: what one test does to it must not harm the next."""
    made = Decoder(Misbehaving(), CONFIG, LIMITS, MODULE)
    yield made
    made.close()


def do(decoder: Decoder, deed: str) -> Any:
    _, info = decoder.probe({"video": io.BytesIO(deed.encode())})
    return json.loads(info)


def failure(decoder: Decoder, deed: str) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        do(decoder, deed)
    return caught.value


@pytest.mark.parametrize("size", [(64, 48), (320, 240)], ids=["sent along", "asked for"])
def test_windows_are_those_of_the_task(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, frames=60, size=size, codec="ffv1", pixel_format="bgr0", gop=1, audio_codec="libopus")
    assert (path.stat().st_size > 2 << 20) == (size == (320, 240))
    decoder = Decoder(TASK, CONFIG, LIMITS)
    with path.open("rb") as file:
        files = {"video": file}
        expected = TASK.probe(files, CONFIG, LIMITS)
        assert decoder.probe(files) == expected
        for first, stop in ((0, 4), (2, 3), (4, 4)):
            windows = TASK.preprocess(files, expected[1], first, stop, CONFIG, LIMITS)
            want = [packed(window, TASK.input_schema(CONFIG)) for window in windows]
            assert len(want) == stop - first
            assert list(decoder.windows(files, expected[1], first, stop)) == want
    decoder.close()


def test_an_error_keeps_its_class_message_and_place(decoder: Decoder) -> None:
    errors = [ItemError.of(failure(decoder, "fail"), "probe") for _ in range(2)]
    assert errors[0] == errors[1]
    assert (errors[0].stage, errors[0].kind, errors[0].message) == (
        "probe",
        "LookupError",
        "there is nothing here",
    )
    with pytest.raises(LookupError) as caught:
        Misbehaving().probe({"video": io.BytesIO(b"fail")}, CONFIG, LIMITS)
    assert len(errors[0].digest) == 16
    assert errors[0].digest != ItemError.of(caught.value, "probe").digest  # it came by another way
    assert ItemError.of(failure(decoder, "overflow"), "probe").kind == "RecursionError"
    assert do(decoder, "pid") == do(decoder, "pid")


def test_a_crash_costs_one_item(decoder: Decoder) -> None:
    before = do(decoder, "pid")
    crash = failure(decoder, "crash")
    assert isinstance(crash, DecodeCrash)
    assert str(crash).startswith(
        "the decoder's process was killed by signal 11 (SIGSEGV) while reading its headers, at "
    )
    assert str(crash).endswith(
        "in crash. Check that the item plays, encode it again, or leave it out of the input."
    )
    assert ItemError.of(crash, "probe").kind == "DecodeCrash"
    assert do(decoder, "pid") != before
    assert failure(decoder, "crash").digest == crash.digest
    left = failure(decoder, "leave")
    assert str(left).startswith("the decoder's process exited with code 3 while reading its headers. ")
    assert left.digest != crash.digest


@pytest.mark.parametrize("deed", ["hang", "hang in c"])
def test_a_hang_ends_at_the_limit(deed: str) -> None:
    decoder = Decoder(Misbehaving(), CONFIG, replace(LIMITS, seconds=0.3), MODULE)
    decoder._started()  # which takes longer
    began = time.monotonic()
    error = failure(decoder, deed)
    assert time.monotonic() - began < 3
    assert isinstance(error, DecodeTimeout)
    assert str(error) == (
        "reading its headers took more than the 0.3 s that limits.seconds allows, and was stopped. Raise "
        "limits.seconds if the item is to be trusted, or leave it out of the input."
    )
    windows = decoder.windows({"video": io.BytesIO(deed.encode())}, None, 0, 3)
    with pytest.raises(DecodeTimeout, match=r"^decoding windows 0 to 2 took more than the 0\.3 s"):
        list(windows)
    assert do(decoder, "nothing") is None
    decoder.close()


def test_a_flood_ends_at_the_limit() -> None:
    """It never pauses, and never ends."""
    decoder = Decoder(Misbehaving(), CONFIG, replace(LIMITS, seconds=0.3), MODULE)
    decoder._started()
    began = time.monotonic()
    windows = decoder.windows({"video": io.BytesIO(b"nothing")}, "flood", 0, 1)
    with pytest.raises(DecodeTimeout, match=r"^decoding window 0 took more than the 0\.3 s"):
        deque(windows, maxlen=0)
    assert time.monotonic() - began < 10
    decoder.close()


def test_a_message_is_a_text_of_some_length(decoder: Decoder) -> None:
    """As a table can hold it, whatever the file says."""
    error = ItemError.of(failure(decoder, "mumble"), "probe")
    assert error.message.startswith("caf\\udce9xxx")
    assert 4_000 <= len(error.message) < 4_010
    pa.array([error.message, error.to_json()])


def test_memory_ends_at_the_limit(decoder: Decoder) -> None:
    error = failure(decoder, "eat")
    assert isinstance(error, DecodeMemory)
    assert str(error) == (
        "reading its headers needs more than the 268,435,456 bytes that limits.memory allows. Raise limits.memory "
        "if the item is to be trusted, or leave it out of the input."
    )
    assert ItemError.of(error, "probe").kind == "DecodeMemory"
    assert do(decoder, "nothing") is None


def test_it_has_no_secrets_and_little_else(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    found = do(decoder, "rummage")
    assert "canary" not in json.dumps(found)
    assert found["environment"].keys() <= {
        "PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONHOME", "PYTHONPATH",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX", "ARROW_DEFAULT_MEMORY_POOL",
    }  # fmt: skip
    assert not {"torch", "ray", "fsspec"} & set(found["modules"])
    assert (found["core"], found["open files"], found["session"]) == ([0, 0], [64, 64], True)
    kinds = [path.split("/")[-1].split(":")[0] for path in found["open"]]
    assert sorted(kind for kind in kinds if kind in ("socket", "pipe")) == ["pipe", "socket"]
    assert kinds.count("null") == 2
    assert len(kinds) == 6  # stderr, and the folder that was listed


def test_what_libraries_print_goes_nowhere(decoder: Decoder, capfd: pytest.CaptureFixture[str]) -> None:
    assert do(decoder, "speak") is None
    assert capfd.readouterr() == ("", "")


class Failing(io.BytesIO):
    """A store that fails behind the first bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 1000:
            raise ConnectionResetError("by peer")
        return super().read(size)


def test_an_error_of_the_storage_stays_what_it_is(decoder: Decoder) -> None:
    before = do(decoder, "pid")
    content = b"read on".ljust(16)
    with pytest.raises(ConnectionResetError, match=r"^by peer$"):
        decoder.probe({"video": Failing(content + bytes(4 << 20))})
    assert decoder.probe({"video": io.BytesIO(content + bytes(4 << 20))}) == (1, str(4 << 20))
    assert do(decoder, "pid") == before  # it was not its fault


def test_too_many_bytes_are_not_even_read() -> None:
    decoder = Decoder(TASK, CONFIG, Limits(bytes=99))
    with pytest.raises(LimitError, match=r"^bytes of the video: 100 are more than the 99 that limits\.bytes"):
        decoder.probe({"video": io.BytesIO(bytes(100))})
    assert decoder._child is None


def test_answers_that_nobody_waits_for_are_not_taken_for_others(decoder: Decoder) -> None:
    windows = decoder.windows({"video": io.BytesIO(b"nothing")}, None, 0, 9)
    assert next(windows)["window"].to_pylist() == [0]
    windows.close()
    assert isinstance(do(decoder, "pid"), int)


def test_one_that_dies_in_its_sleep_is_replaced(decoder: Decoder) -> None:
    pid = do(decoder, "pid")
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)], timeout=5)
    assert do(decoder, "pid") != pid


def test_it_outlives_the_thread_that_started_it_but_not_its_decoder() -> None:
    decoder = Decoder(Misbehaving(), CONFIG, LIMITS, MODULE)
    pids: list[int] = []
    thread = threading.Thread(target=lambda d: pids.append(do(d, "pid")), args=(decoder,))
    thread.start()
    thread.join()
    del thread
    assert do(decoder, "pid") == pids[0]
    decoder.close()
    decoder.close()  # once is enough, twice is no harm
    assert not psutil.pid_exists(pids[0])
    other = do(decoder, "pid")  # a closed one starts again
    del decoder
    gc.collect()
    assert not psutil.pid_exists(other)


@pytest.mark.parametrize("deed", [b"hang", b"hang in c"])
def test_no_orphan_stays_when_its_parent_is_killed(deed: bytes) -> None:
    """Even where it hangs and keeps the interpreter's lock."""
    code = (
        "import io\n"
        "from perceiver_core.config import PerceiverConfig\n"
        "from pipelines.decoding import Decoder\n"
        "from pipelines.limits import Limits\n"
        "from tests.pipelines.misbehaving import MODULE, Misbehaving\n"
        "decoder = Decoder(Misbehaving(), PerceiverConfig(), Limits(), MODULE)\n"
        f"for deed in (b'pid', {deed!r}, b'hang'):\n"
        "    print(decoder.probe({'video': io.BytesIO(deed)})[1], flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        assert child.is_running()
        parent.kill()
    assert psutil.wait_procs([child], timeout=5)[1] == []


class Unstartable(MultimodalAutoencoding):
    """Not in the list of tasks."""

    name = "nowhere"  # type: ignore[misc]


def test_where_nothing_can_be_decoded_nothing_is_quarantined(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", frames=3)
    source = Files((str(tmp_path),), VIDEO)
    decoder = Decoder(Unstartable(), CONFIG, LIMITS)
    with pytest.raises(DecoderError, match=r"did not start \(GoneError\).*(?s:.)*KeyError: 'nowhere'"):
        list(list_and_probe(source, [decoder]))
    plan = cut_shards(list_and_probe(source, [Decoder(TASK, CONFIG, LIMITS)]), 4)
    with pytest.raises(DecoderError, match="did not start"):
        Decode(Unstartable(), CONFIG, source, LIMITS).shard(plan)


def test_each_of_a_folders_items_ends_as_a_row_or_an_error(tmp_path: Path) -> None:
    """As they are probed: several at once, by decoders that die now and then."""
    deeds = ["nothing", "crash", "fail", "leave", "nothing", "eat", "hang", "nothing"]
    for n, deed in enumerate(deeds):
        (tmp_path / f"{n}.mp4").write_text(deed)
    decoders = [Decoder(Misbehaving(), CONFIG, replace(LIMITS, seconds=1.5), MODULE) for _ in range(2)]
    probed = list(list_and_probe(Files((str(tmp_path),), VIDEO), decoders))
    assert [one.error and one.error.kind for one in probed] == [
        None, "DecodeCrash", "LookupError", "DecodeCrash", None, "DecodeMemory", "DecodeTimeout", None,
    ]  # fmt: skip
    assert [one.windows for one in probed] == [1, 0, 0, 0, 1, 0, 0, 1]
    for decoder in decoders:
        decoder.close()


def test_probing_that_is_given_up_does_not_wait(tmp_path: Path) -> None:
    """Ctrl-C, or the first bad item where on_error is fail."""
    for n in range(5):
        (tmp_path / f"{n}.mp4").write_text("nothing" if n == 0 else "hang")
    before = psutil.Process().children()
    decoders = [Decoder(Misbehaving(), CONFIG, LIMITS, MODULE) for _ in range(2)]
    probed = list_and_probe(Files((str(tmp_path),), VIDEO), decoders)
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # in the background a shell has it ignored
    threading.Timer(2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(probed)
    signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - began < 8
    assert psutil.Process().children() == before


def test_a_windows_bytes_are_checked() -> None:
    """They come from where strangers' bytes were."""
    decoder = Decoder(TASK, CONFIG, LIMITS)
    schema = pa.schema([pa.field("video", pa.large_binary())])
    batch = pa.record_batch([pa.array([b"12345"], pa.large_binary())], schema)
    data = bytearray(batch.serialize())
    at = data.rindex(np.int64(5).tobytes())  # the offset of its end
    decoder._answers = lambda *_: iter([({"is": "window"}, data)])  # type: ignore[method-assign,assignment]
    decoder.task = type("Task", (), {"input_schema": lambda *_: schema})()
    [good] = decoder.windows({}, None, 0, 1)
    assert good["video"].to_pylist() == [b"12345"]
    data[at] = 200
    with pytest.raises(DecodeCrash, match=r"^the decoder's process sent a window that is none \(.*200"):
        list(decoder.windows({}, None, 0, 1))
