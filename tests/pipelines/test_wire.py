"""Frames between processes, and the child's view of a file that its parent has open."""

import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.decode_child import ParentsFile, ReadError
from pipelines.wire import Channel, GoneError, LateError

JSON = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(), st.none(), st.booleans()))


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(end) for end in socket.socketpair())
    yield one, other
    one.close()
    other.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(head=JSON, bodies=st.lists(st.binary(max_size=100), max_size=3))
def test_a_frame_arrives_as_it_was_sent(
    ends: tuple[Channel, Channel], head: dict[str, Any], bodies: list[bytes]
) -> None:
    ends[0].send(head, *bodies)
    assert ends[1].receive(most=300) == (head, b"".join(bodies))


def test_a_frame_larger_than_any_buffer(ends: tuple[Channel, Channel]) -> None:
    body = bytes(range(256)) * (1 << 16)
    sending = threading.Thread(target=ends[0].send, args=({}, body))
    sending.start()
    assert ends[1].receive(most=len(body), seconds=30) == ({}, body)
    sending.join()


def test_silence_ends_in_time(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(LateError):
        ends[1].receive(most=0, seconds=0.05)
    with pytest.raises(LateError):  # nobody reads
        ends[0].send({}, bytes(64 << 20), seconds=0.05)


def test_half_a_frame_and_an_end(ends: tuple[Channel, Channel]) -> None:
    ends[0].end.sendall(b"\x05\0\0\0\0\0\0\0\0\0\0\0{")
    ends[0].close()
    with pytest.raises(GoneError):
        ends[1].receive(most=0)
    with pytest.raises(GoneError):
        ends[1].send({}, bytes(1 << 20))


def test_a_frame_that_promises_too_much(ends: tuple[Channel, Channel]) -> None:
    ends[0].send({}, b"four")
    with pytest.raises(ValueError, match=r"^expected a frame of at most 67108864 \+ 3 bytes; got 2 \+ 4$"):
        ends[1].receive(most=3)


class Parent:
    """Answers a child's questions at once."""

    def __init__(self, data: bytes, most: int = 1 << 30) -> None:
        self.data, self.most, self.asked = data, most, list[tuple[int, int]]()

    def send(self, head: dict[str, Any]) -> None:
        assert (head["is"], head["name"]) == ("read", "video")
        self.asked.append((head["offset"], head["length"]))

    def receive(self, most: int) -> tuple[dict[str, Any], bytearray]:
        offset, length = self.asked[-1]
        return {}, bytearray(self.data[offset : offset + min(length, self.most)])


SIZE = 3_000_000
DATA = bytes(range(251)) * (SIZE // 251 + 1)


@settings(max_examples=50)
@given(
    steps=st.lists(st.tuples(st.integers(0, SIZE + 10), st.integers(-1, 200_000)), max_size=30),
    most=st.sampled_from([1000, 1 << 30]),
)
def test_it_reads_as_a_file_does(steps: list[tuple[int, int]], most: int) -> None:
    plain = io.BytesIO(DATA[:SIZE])
    file = ParentsFile(Parent(DATA[:SIZE], most), "video", SIZE)  # type: ignore[arg-type]
    for offset, size in steps:
        assert file.seek(offset) == plain.seek(offset)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()
    assert file.seek(-5, io.SEEK_END) == SIZE - 5
    assert file.seek(2, io.SEEK_CUR) == SIZE - 3
    assert io.BufferedReader(file).read() == DATA[SIZE - 3 : SIZE]
    with pytest.raises(OSError, match=r"expected a position of at least 0; got -1$"):
        file.seek(-1)


def test_reading_on_asks_seldom() -> None:
    """As PyAV does: 32 KiB at a time, picture and sound at places of their own."""
    parent = Parent(bytes(8 << 20))
    file = ParentsFile(parent, "video", 8 << 20)  # type: ignore[arg-type]
    for at in range(0, 4 << 20, 32 << 10):
        for begin in (0, 4 << 20):
            file.seek(begin + at)
            assert len(file.read(32 << 10)) == 32 << 10
    assert [length for offset, length in parent.asked if offset < 4 << 20][:5] == [
        1 << n for n in (16, 17, 18, 19, 20)
    ]
    assert len(parent.asked) == 16  # of 256 reads
    assert sum(length for _, length in parent.asked) <= (8 << 20) + (1 << 20)


def test_a_file_that_ends_early_or_fails() -> None:
    short = ParentsFile(Parent(b"1234"), "video", 9)  # type: ignore[arg-type]
    with pytest.raises(EOFError, match=r"^video ends at byte 4: expected 9 bytes$"):
        short.read()

    class Failing(Parent):
        def receive(self, most: int) -> tuple[dict[str, Any], bytearray]:
            return {"failed": True}, bytearray()

    with pytest.raises(ReadError, match=r"^video could not be read$"):
        ParentsFile(Failing(b""), "video", 9).read(1)  # type: ignore[arg-type]
