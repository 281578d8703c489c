"""What is measured and how: seconds, bytes, and the matrix products that this machine can do."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from perceiver_core.folding.linear import linear

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def now() -> float:
    """Seconds, when the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = now()
    call()
    return now() - began


def has_dtype(dtype: torch.dtype) -> bool:
    """Whether the device multiplies in it, and does not just convert to float32 and back."""
    if dtype != torch.bfloat16:
        return True
    if DEVICE.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@cache
def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few large square matrix products: what a model could reach at most.

    By either of torch's two CPU libraries: what they reach differs by a factor of two on some machines.
    """
    sizes = (4096, 8192) if DEVICE.type == "cuda" else (1024, 2048, 3072)
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
        for _ in range(8):
            for product in (torch.matmul, linear):
                best = max(best, 2 * size**3 / timed(lambda a=a, b=b, f=product: f(a, b)))  # type: ignore[misc]
    return best


def memory_of(call: Callable[[], Any]) -> tuple[int, int] | tuple[None, None]:
    """Bytes that a call leaves behind and what it takes at its highest, beyond what was held; None: nobody tells."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    try:
        _trim()  # or what an earlier call freed would be counted as held
        Path("/proc/self/clear_refs").write_text("5")  # 5: forget the highest so far
        before = _status("VmRSS")
    except (OSError, AttributeError):
        call()
        return None, None
    call()
    peak = _status("VmHWM") - before
    _trim()
    return max(0, _status("VmRSS") - before), max(0, peak)


def held_memory(model: nn.Module) -> int:
    """Bytes of a model's tensors, each counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def machine() -> str:
    """One line: what this ran on."""
    if DEVICE.type == "cuda":
        name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    else:
        name = f"{_cpu_name()}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}"


def _cpu_name() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    return platform.processor() or platform.machine()


def _trim() -> None:
    ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
