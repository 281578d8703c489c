"""What went wrong with one item, as a value: it travels beside the good rows and ends in the quarantine table."""

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass

import pyarrow as pa


@dataclass(frozen=True)
class ItemError:
    """One item's failure: where it happened, and what a person needs to know of it."""

    stage: str  #: probe | decode
    kind: str  #: the exception's class
    message: str
    digest: str  #: hash of the traceback's code places: the same bug has the same digest

    @staticmethod
    def of(error: BaseException, stage: str) -> "ItemError":
        places = [f"{frame.name}:{frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
        digest = hashlib.sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:16]
        return ItemError(stage, type(error).__name__, str(error) or type(error).__name__, digest)

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
