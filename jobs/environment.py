"""What an attempt runs with: versions and hardware, for whoever compares it with another one."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from cluster.local import cores, gpu_type

_PACKAGES = ("perceiver-batch", "torch", "ray", "pyarrow", "av")


def environment() -> dict[str, Any]:
    """This machine's."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "cpu": _cpu(),
        "cores": cores(),
        "memory": psutil.virtual_memory().total,
        "gpu": gpu_type(),
    }


def _cpu() -> str:
    """What the first core calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
