"""What went wrong with one item, as a value: it travels beside the good rows and ends in the quarantine table."""

import hashlib
import json
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from perceiver_core.errors import PerceiverError
from pipelines.secrets import redacted

_LONGEST = 4_000  # characters of a message
READ = "read"  #: the stage at which it is an object that its store doesn't give
#: Classes that say more of where and when an item was tried than of the item.
PASSING = ("FileNotFoundError", "PermissionError", "DecodeCrash", "DecodeTimeout")


class DecodeError(PerceiverError):
    """What a decoder's process raised, by the name of its class there and the digest of its traceback there."""

    def __init__(self, message: str, digest: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.digest = digest
        self.kind = kind or type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        # By default it would be made anew of its message alone.
        return type(self), (str(self), self.digest, self.kind), self.__dict__


class DecodeCrash(DecodeError):  # noqa: N818  # as the quarantine table has it
    """The decoder's process died."""

    killed = False  #: by SIGKILL: by the kernel, where memory was short by anyone's doing, or by somebody


class DecodeTimeout(DecodeError):  # noqa: N818  # as the quarantine table has it
    """It took longer than limits.seconds, and was killed."""


class DecodeMemory(DecodeError):  # noqa: N818  # as the quarantine table has it
    """It needed more than limits.memory."""


def digest_of(error: BaseException) -> str:
    """A hash of an exception's class and of the places in the code that it came through."""
    places = [f"{frame.name}:{frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
    return digest_of_places([type(error).__name__, *places])


def digest_of_places(places: Iterable[str]) -> str:
    """The same, of names."""
    return hashlib.sha256("\n".join(places).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ItemError:
    """One item's failure: where it happened, and what a person needs to know of it."""

    stage: str  #: probe | read | decode | predict
    kind: str  #: the exception's class
    message: str
    digest: str  #: hash of the traceback's code places: the same bug has the same digest

    @staticmethod
    def of(error: BaseException, stage: str) -> "ItemError":
        known = error if isinstance(error, DecodeError) else None
        kind = known.kind if known else type(error).__name__
        # What a file brings along may be of any length, and no text that a table can hold.
        message = redacted(str(error) or kind)[:_LONGEST].encode("utf-8", "backslashreplace").decode()
        return ItemError(stage, kind, message, known.digest if known else digest_of(error))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "ItemError":
        return ItemError(**json.loads(text))


#: The quarantine table. `first` and `stop` say which of the item's windows are missing from the output.
QUARANTINE = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("traceback_digest", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
    ]
)
