"""A decoder's process whose task does what no task should: `Decoder(..., module="tests.pipelines.misbehaving")`."""

import ctypes
import faulthandler
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np

from perceiver_core.config import PerceiverConfig
from pipelines.decode_child import serve
from pipelines.limits import Limits
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding

MODULE = "tests.pipelines.misbehaving"


@dataclass(frozen=True)
class Misbehaving(MultimodalAutoencoding):
    """Does as the content says, in its probe."""

    name: ClassVar[str] = "misbehaving"

    def probe(
        self, files: Mapping[str, BinaryIO], config: PerceiverConfig, limits: Limits
    ) -> tuple[int, str]:
        return 1, json.dumps(DEEDS[files["video"].read(16).decode().strip()](files["video"]))

    def preprocess(
        self,
        files: Mapping[str, BinaryIO],
        info: str | None,
        first: int,
        stop: int,
        config: PerceiverConfig,
        limits: Limits,
    ) -> Iterator[Mapping[str, Any]]:
        video, audio = np.zeros((16, 24, 32, 3), np.uint8), np.zeros(30_720, np.float32)
        for index in range(first, stop):
            yield {
                "window": index,
                "start_time": 0.0,
                "frames": 16,
                "samples": 0,
                "video": video,
                "audio": audio,
            }
            self.probe(files, config, limits)


def hang(_: BinaryIO) -> None:
    while True:
        time.sleep(0.01)


def hang_in_c(_: BinaryIO) -> None:
    ctypes.PyDLL(None).pause()  # it keeps the interpreter's lock


def eat(_: BinaryIO) -> None:
    held = []
    while True:
        held.append(np.ones(1 << 20))


def overflow(_: BinaryIO) -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    deeper(0)


def crash(_: BinaryIO) -> None:
    faulthandler._sigsegv()


def leave(_: BinaryIO) -> None:
    os._exit(3)


def speak(_: BinaryIO) -> None:
    print("this is printed")
    os.write(1, b"so is this")
    os.write(2, b"and this\n")


def rummage(_: BinaryIO) -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "modules": sorted(sys.modules),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "open": sorted(os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")),
        "session": os.getsid(0) == os.getpid(),
    }


def fail(_: BinaryIO) -> None:
    raise LookupError("there is nothing here")


def read_on(file: BinaryIO) -> int:
    return len(file.read())


DEEDS: dict[str, Any] = {
    "hang": hang,
    "hang in c": hang_in_c,
    "eat": eat,
    "overflow": overflow,
    "crash": crash,
    "leave": leave,
    "speak": speak,
    "rummage": rummage,
    "fail": fail,
    "read on": read_on,
    "nothing": lambda _: None,
    "pid": lambda _: os.getpid(),
}

if __name__ == "__main__":
    serve((Misbehaving,))
