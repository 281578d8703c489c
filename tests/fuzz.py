"""Thousands of damaged files through a decoder's process: each ends as windows or as an error, and nothing else.

    python -m tests.fuzz [--count N] [--seed S]

Prints how they ended; exits with 1 if one did as it must not. `make fuzz` makes 5,000.
"""

import argparse
import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipelines.decoding import Decoder
from pipelines.errors import ItemError
from pipelines.limits import Limits
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip
from tests.conftest import tiny_config

#: A wrong byte in a header can ask for hours of frames.
LIMITS = Limits(frames=2_000, duration=600, pixels=1 << 22, seconds=20, memory=512 << 20)
#: What a person can read of a damaged file. Others are bugs of ours.
EXPECTED = {"MediaError", "LimitError", "DecodeCrash", "DecodeTimeout", "DecodeMemory"}
GROWTH = 300 << 20  # bytes that this process may grow by: its own windows, and nothing that stays

SEEDS: dict[str, dict[str, object]] = {
    "h264.mp4": {"audio_codec": "aac"},
    "fragments.mp4": {"audio_codec": "aac", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h265.mkv": {"codec": "libx265", "audio_codec": "libmp3lame"},
    "vp9.webm": {"codec": "libvpx-vp9", "audio_codec": "libopus"},
    "av1.mp4": {"codec": "libsvtav1", "size": (64, 64), "audio_codec": "libopus"},
    "mpeg4.mov": {"codec": "mpeg4", "audio_codec": "pcm_s16le"},
    "mjpeg.mov": {"codec": "mjpeg", "pixel_format": "yuvj420p", "audio_codec": "aac"},
    "ffv1.mkv": {"codec": "ffv1", "pixel_format": "bgr0", "audio_codec": "pcm_s16le"},
    "prores.mov": {"codec": "prores", "pixel_format": "yuv422p10le"},
}


def make_seeds(folder: Path) -> dict[str, bytes]:
    """A small clip of each codec and container."""
    for name, options in SEEDS.items():
        write_clip(folder / name, **({"frames": 24, "gop": 8} | options))  # type: ignore[arg-type]
    return {name: (folder / name).read_bytes() for name in SEEDS}


def mutate(random: random.Random, data: bytes, other: bytes) -> bytes:
    """A file with some damage of one to three kinds."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(KINDS)(random, out, other)
    return bytes(out)


def _place(random: random.Random, data: bytearray) -> int:
    """Anywhere, or in the headers, which are at either end."""
    edge = min(len(data), 2_000)
    at = random.choice(
        (random.randrange(len(data) or 1), random.randrange(edge or 1), -random.randrange(edge or 1))
    )
    return at % (len(data) or 1)


def _flip(random: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(random.choice((1, 2, 8, 64)) if data else 0):
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _noise(random: random.Random, data: bytearray, other: bytes) -> None:
    at, length = _place(random, data), random.choice((4, 32, 500))
    data[at : at + length] = random.randbytes(len(data[at : at + length]))


def _number(random: random.Random, data: bytearray, other: bytes) -> None:
    """A field of a header at one of its extremes."""
    width, at = random.choice((2, 4, 8)), _place(random, data)
    value = random.choice((0, 1, (1 << 8 * width) - 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1))
    data[at : at + width] = value.to_bytes(width)


def _truncate(random: random.Random, data: bytearray, other: bytes) -> None:
    del data[_place(random, data) :]


def _remove(random: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(random, data)
    del data[at : at + random.choice((1, 8, 300))]


def _splice(random: random.Random, data: bytearray, other: bytes) -> None:
    """A piece of another file in the place of a piece of this one, or between two."""
    at, begin = _place(random, data), random.randrange(len(other))
    piece = other[begin : begin + random.choice((16, 200, 4_000))]
    data[at : at + random.choice((0, len(piece)))] = piece


def _repeat(random: random.Random, data: bytearray, other: bytes) -> None:
    at = _place(random, data)
    data[at:at] = data[at : at + random.choice((8, 200, 4_000))]


Damage = Callable[[random.Random, bytearray, bytes], None]
KINDS: tuple[Damage, ...] = (_flip, _flip, _noise, _number, _number, _truncate, _remove, _splice, _repeat)


@dataclass
class Account:
    """How files ended: by class, the slowest, and those that ended as they must not."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    grown: int = 0


def mutants(count: int, seed: int, seeds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of each: the same for a seed."""
    names = sorted(seeds)
    for n in range(count):
        chosen = random.Random(f"{seed}/{n}")
        name, other = names[n % len(names)], chosen.choice(names)
        yield f"{name} of seed {seed}/{n}", mutate(chosen, seeds[name], seeds[other])


def run(count: int, seed: int, seeds: dict[str, bytes], limits: Limits = LIMITS) -> Account:
    """Read them all with one decoder."""
    decoder = Decoder(MultimodalAutoencoding(), tiny_config(), limits)
    account, this = Account(), psutil.Process()
    before = this.memory_info().rss
    for name, data in mutants(count, seed, seeds):
        began = time.monotonic()
        stage, rows = "probe", 0
        try:
            files = {"video": io.BytesIO(data)}
            windows, info = decoder.probe(files)
            stage = "decode"
            for batch in decoder.windows(files, info, 0, windows):
                rows += batch.num_rows
            end = ("windows", "")
            if rows != windows:
                account.wrong.append(f"{name}: expected {windows} windows; got {rows}")
        except Exception as caught:
            error = ItemError.of(caught, stage)
            end = (error.kind, stage)
            account.examples.setdefault(end, error.message)
            if error.kind not in EXPECTED:
                account.wrong.append(f"{name}: {stage}: {error.kind}: {error.message} ({error.digest})")
        account.ended[end] += 1
        took = time.monotonic() - began
        account.slowest = max(account.slowest, took)
        if took > 2 * limits.seconds + 10:
            account.wrong.append(f"{name}: took {took:.0f} s")
    account.grown = this.memory_info().rss - before
    if account.grown > GROWTH:
        account.wrong.append(f"this process grew by {account.grown:,} bytes")
    decoder.close()
    return account


def main() -> None:
    """Reads the command line, runs and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seeds = make_seeds(Path(folder))
    account = run(asked.count, asked.seed, seeds)
    for (kind, stage), count in account.ended.most_common():
        print(f"{count:6}  {kind:14} {stage:7} {account.examples.get((kind, stage), '')[:120]}")
    print(
        f"{asked.count} files, slowest {account.slowest:.1f} s, this process grew by {account.grown >> 20} MB, "
        f"{time.monotonic() - began:.0f} s in all"
    )
    for line in account.wrong:
        print(f"WRONG: {line}")
    sys.exit(bool(account.wrong))


if __name__ == "__main__":
    main()
