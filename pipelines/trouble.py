"""Trouble that is not a file's fault: stores that do not answer, devices that are short of memory or sick."""

import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
import tenacity

from perceiver_core.errors import PerceiverError
from pipelines.errors import READ, DecodeCrash, ItemError
from pipelines.items import version_now
from pipelines.meter import Meter
from pipelines.sources import SourceError
from pipelines.transient import UnavailableError, is_transient, retrying

T = TypeVar("T")

_TRIES = 3  # more, of a shard that its worker died over; by default Ray would go on for ever
_LEAST = 4  # tries of an item, even if each of them takes longer to fail than all patience
#: How CUDA's libraries begin their errors, where PyTorch has no class for them.
_SICK = ("CUDA error", "device-side assert", "CUBLAS", "cuDNN error")
#: And how they say that there is no memory for their own needs, which PyTorch's allocator holds.
_SHORT = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
#: Decibels of a perfect reconstruction, or of silence for silence, are infinite; NaN they are not.
_UNBOUNDED = ("video_psnr", "audio_psnr")


class DeviceMemoryError(PerceiverError, RuntimeError):
    """The device has no room for one window and one output point."""


class DeviceError(PerceiverError, RuntimeError):
    """A device failed under one shard again and again."""


class NonFiniteError(PerceiverError, ArithmeticError):
    """The model's answer holds NaN or infinity."""


class _Patience:
    """When to stop asking: so long after the first failure, for the reading before it may have taken longer itself."""

    def __init__(self, seconds: float, stop: Event) -> None:
        self.seconds, self.stop, self.first = seconds, stop, 0.0

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        now = state.outcome_timestamp or 0.0
        if state.attempt_number == 1:
            self.first = now
        over = now - self.first >= self.seconds and state.attempt_number >= _LEAST
        return over or self.stop.is_set()


def persistently(
    read: Callable[[], T],
    seconds: float,
    tell: Callable[[BaseException, float], None],
    stop: Event | None = None,
) -> T:
    """Call what reads an item again while it fails in passing, for so long; then raise the last error.

    `tell` is called with the error and the seconds of the pause, before it; `stop` ends the waiting.
    """
    stop = stop or Event()
    patience, sleep = _Patience(seconds, stop), tenacity.sleep_using_event(stop)
    return retrying(seconds, tell).copy(stop=patience, sleep=sleep)(read)


def once_more(
    read: Callable[[], T], tell: Callable[[BaseException, float], None], stopped: Event | None = None
) -> T:
    """Call what decodes an item again if its process was killed: a second time, it is the item that is to blame.

    Not once it is `stopped`: then it was we who killed it.
    """
    try:
        return read()
    except DecodeCrash as crash:
        if not crash.killed or (stopped and stopped.is_set()):
            raise
        tell(crash, 0.0)
    return read()


def retry_fields(stage: str, item: Mapping[str, Any], error: BaseException, wait_s: float) -> dict[str, Any]:
    """What is told of a retry."""
    return {
        "stage": stage,
        "uri": item["uri"],
        "error": type(error).__name__,
        "message": str(error),
        "wait_s": round(wait_s, 2),
    }


def blame(error: Exception, item: Mapping[str, Any], stage: str, seconds: float) -> ItemError:
    """What is wrong with an item, of an error that persisted; UnavailableError if it is not the item but its store."""
    if not is_transient(error):
        return ItemError.of(error, stage)
    uri = item["uri"]
    what = f"{type(error).__name__}: {str(error).rstrip('.')}"
    try:
        now = version_now(uri)
    except FileNotFoundError:
        return _changed(f"{uri} is gone", what)
    except Exception as silence:
        raise UnavailableError(
            f"{uri} could not be read for {seconds:g} s ({what}), and its store does not say what has become of it "
            f"({type(silence).__name__}: {str(silence).rstrip('.')}). Check the network, the store and its "
            "credentials, then run the job again: it resumes."
        ) from error
    if now != item["version"]:
        return _changed(f"{uri} has changed: expected version {item['version']}, got {now}", what)
    return ItemError.of(error, READ)  # the store is up: it is this object that can't be read


def _changed(what: str, error: str) -> ItemError:
    message = f"{what}, since the run was planned ({error}). Run the job again into another output."
    return ItemError.of(SourceError(message), READ)


def is_short(error: RuntimeError) -> bool:
    """Whether an error says that the device has no memory left: with less at once, it goes on."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _SHORT)


def is_sick(error: RuntimeError) -> bool:
    """Whether an error says that the device's context is broken: all calls after it fail, in this process."""
    import torch

    known: Any = getattr(torch, "AcceleratorError", ())  # since 2.8
    if is_short(error):
        return False
    return isinstance(error, known) or any(text in str(error) for text in _SICK)


def out_of_memory(error: BaseException, device: str, dtype: str) -> DeviceMemoryError:
    """No room, even for the least: what was asked for, and what to set."""
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    smaller = "" if dtype == "bfloat16" else "set model.dtype to bfloat16, "
    return DeviceMemoryError(
        f"The device {device} ran out of memory with one window and one output point at a time: expected room for "
        f"another {asked[1] if asked else 'allocation'} beside the model; got: {first_line(error)}. End what else "
        f"uses the device, {smaller}choose a device with more memory, or set compute.device to cpu; then run the job "
        "again: it resumes."
    )


def broken_device(error: BaseException, shard: int, times: int) -> DeviceError:
    """The device fails whatever process uses it."""
    return DeviceError(
        f"Shard {shard} met an error of its device {times} times, each in another process; the last: "
        f"{first_line(error)}. Look for the device's own errors (nvidia-smi -q, dmesg), set CUDA_LAUNCH_BLOCKING=1 to "
        "learn which call it is, or choose another device; then run the job again: it resumes."
    )


def first_line(error: BaseException) -> str:
    """What an error says at first, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def nonfinite(predictions: Mapping[str, Any]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows of what was predicted hold numbers that no model should answer: masks (rows,), by column."""
    masks = {
        name: np.array([_is_bad(name, row) for row in values], bool) for name, values in predictions.items()
    }
    return {name: mask for name, mask in masks.items() if mask.any()}


def _is_bad(name: str, row: npt.NDArray[Any] | np.generic) -> bool:
    if row.dtype.kind != "f":
        return False
    return bool(np.isnan(row).any() if name in _UNBOUNDED else not np.isfinite(row).all())


def nonfinite_error(columns: Mapping[str, int], dtype: str) -> NonFiniteError:
    """What a span's quarantine row says: in which columns, and of how many of its windows each."""
    where = ", ".join(f"{name} ({count} windows)" for name, count in columns.items())
    rounded = "" if dtype == "float32" else "Set model.dtype to float32: " + dtype + " overflows sooner. "
    return NonFiniteError(
        f"expected finite numbers of the model; got NaN or infinity in {where}, twice, from two processes. {rounded}"
        "Check the item, and the checkpoint with others, or leave the item out of the input."
    )


class DeadlyShardError(PerceiverError, RuntimeError):
    """A shard over which one worker after the other died."""


def survivable(meter: Meter, stage: str, shard: int) -> None:
    """Raise DeadlyShardError if a shard's worker died, with whatever it is that it does to them, too often before.

    Ray's own limit counts each call to a node that is gone, until it knows that it is, and shards that only waited.
    """
    died = meter.begin(stage, shard) - 1
    if died > _TRIES:
        raise DeadlyShardError(
            f"Shard {shard} has cost {died} workers of the stage {stage}, which died over it without a word, as they "
            "do where the kernel ends them because memory is short (dmesg says so), or a library crashes. What is "
            "committed stays. Run the job again with a smaller compute.batch, or with fewer workers a node."
        )


def end_process() -> NoReturn:
    """End this worker, so that Ray starts another and gives it the shard again; by sys.exit it would not."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
