"""How much of a stranger's file is believed: what is larger goes to quarantine, by name of the limit."""

from dataclasses import dataclass, fields

from perceiver_core.errors import PerceiverError
from pipelines.describing import option


class LimitError(PerceiverError, ValueError):
    """An item is larger than the job allows."""


@dataclass(frozen=True)
class Limits:
    """Of one item; each is a field of the job's `limits`."""

    bytes: int = option(64 << 30, "of the file")
    pixels: int = option(1 << 26, "of an image, or of a video's frame: 67 megapixels")
    frames: int = option(30 * 60 * 60 * 12, "of a video: twelve hours at 30 a second")
    duration: float = option(12.0 * 60 * 60, "seconds of a video")
    streams: int = option(64, "in a container")
    members: int = option(10_000_000, "in a tar, or rows in one Parquet or Arrow file")
    text: int = option(16 << 20, "bytes of a text")
    seconds: float = option(
        600.0, "that one item's decoding may take, a span of a long video counting as one"
    )
    memory: int = option(4 << 30, "bytes of address space that a decoder may have beyond what it starts with")

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be more than 0; got {getattr(self, field.name)}.")

    def check(self, name: str, found: float, what: str) -> None:
        """Raise LimitError if an item has more than the limit of that name."""
        allowed = getattr(self, name)
        if found > allowed:
            raise LimitError(
                f"{what}: {found:,} are more than the {allowed:,} that limits.{name} allows. "
                f"Raise limits.{name} if the item is to be trusted."
            )


STANDARD = Limits()
