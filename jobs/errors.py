"""The errors that whoever runs a job can meet, all of them PerceiverErrors, and what `perceive` exits with for each.

Those of single items (MediaError, DecodeTimeout, ...) are rows of the quarantine table, and end no run.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.errors import ClusterError
from jobs.budget import ErrorBudgetError
from jobs.comparing.comparison import ComparisonError
from jobs.exit_codes import BAD_SPEC, BUDGET_EXCEEDED, FAILED, INTERRUPTED
from jobs.lease import LeaseError, LeaseLostError
from jobs.scheduling.alerts import WebhookBusyError, WebhookError
from jobs.scheduling.states import TickStateError
from jobs.scheduling.store import UnknownScheduleError
from jobs.spec import SpecError
from jobs.states import StateError
from jobs.store import StoreError, UnknownRunError
from perceiver_core.errors import PerceiverError
from perceiver_core.sources import CheckpointError
from pipelines.decoding import DecoderError
from pipelines.items import InputError
from pipelines.pools import PoolError
from pipelines.secrets import SecretError
from pipelines.storage import OutputError
from pipelines.transient import UnavailableError
from pipelines.trouble import DeadlyShardError, DeviceError, DeviceMemoryError
from pipelines.watchdog import StalledError

__all__ = [
    "CheckpointError",
    "ComparisonError",
    "DeadlyShardError",
    "DecoderError",
    "DeviceError",
    "DeviceMemoryError",
    "ErrorBudgetError",
    "InputError",
    "LeaseError",
    "LeaseLostError",
    "OutputError",
    "PerceiverError",
    "PoolError",
    "SecretError",
    "SpecError",
    "StalledError",
    "StateError",
    "StoreError",
    "TargetError",
    "TickStateError",
    "UnavailableError",
    "UnknownRunError",
    "UnknownScheduleError",
    "WebhookBusyError",
    "WebhookError",
    "exit_code",
    "of_cluster",
]

#: Before anything is written. Not CheckpointError: before that it is a SpecError, so weights went while the run was on.
_OF_THE_JOB = (
    SpecError,
    LeaseError,
    InputError,
    PoolError,
    SecretError,
    UnknownRunError,
    UnknownScheduleError,
    ComparisonError,
)


class TargetError(PerceiverError, RuntimeError):
    """The place where a run was to happen can't be used: what `cluster` says of it, as an error of this root."""


def exit_code(error: BaseException) -> int:
    """What `perceive` exits with for an error that ends it."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, ErrorBudgetError):
        return BUDGET_EXCEEDED
    return BAD_SPEC if isinstance(error, _OF_THE_JOB) else FAILED


@contextmanager
def of_cluster() -> Iterator[None]:
    """What `cluster` raises in the block, as a TargetError."""
    try:
        yield
    except ClusterError as error:
        raised = TargetError(str(error))
        for note in getattr(error, "__notes__", ()):
            raised.add_note(note)
        raise raised from error
