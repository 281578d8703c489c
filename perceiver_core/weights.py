"""The files with a checkpoint's tensors: safetensors or .bin, whole or sharded. Torch is imported to read a tensor."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_core.sources import CheckpointError, first_names, shards_of

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
}  # safetensors' name -> torch's; others are told as they are
_BUFFERS = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
)  # of a BatchNorm: tensors, but no parameters


@dataclass(frozen=True)
class Contents:
    """What the headers of safetensors files tell; nothing of .bin files, whose tensors would have to be read."""

    tensors: int | None = None
    parameters: int | None = None
    dtypes: tuple[str, ...] | None = None


def find_weights(folder: Path) -> tuple[Path, ...]:
    """A folder's files with tensors: safetensors if there are any, whole or in the shards that an index names."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return (folder / name,)
        if index.is_file():
            shards = shards_of(index.read_text(encoding="utf-8"), str(index))
            if missing := [shard for shard in shards if not (folder / shard).is_file()]:
                raise CheckpointError(f"{index} must name files that are there; got {first_names(missing)}.")
            return tuple(folder / shard for shard in shards)
    raise CheckpointError(
        f"{folder} must have model.safetensors or pytorch_model.bin; "
        f"got {first_names(path.name for path in folder.iterdir())}. Copy the weights next to config.json."
    )


def read_headers(files: Sequence[Path]) -> Contents:
    """What is in the files, as their headers have it."""
    if any(file.suffix != ".safetensors" for file in files):
        return Contents()
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    dtypes: set[str] = set()
    for file in files:
        try:
            with safe_open(file, framework="np") as tensors:  # compares the header with the file's size
                for name in tensors.keys():  # noqa: SIM118  # a method: this is no dict
                    header = tensors.get_slice(name)
                    dtypes.add(_DTYPES.get(header.get_dtype(), header.get_dtype()))
                    sizes[name] = 0 if name.endswith(_BUFFERS) else math.prod(header.get_shape())
        except SafetensorError as error:
            raise _damaged(file, error) from error
    return Contents(len(sizes), sum(sizes.values()), tuple(sorted(dtypes)))


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors by name, mapped from the files: they take no memory until they are used."""
    found: dict[str, Tensor] = {}
    for file in files:
        found.update(_read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file))
    return found


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise _damaged(file, error) from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    """weights_only: a pickle may name tensors and nothing else."""
    import torch

    try:
        # Files older than the zip format can't be mapped.
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        if asked := re.search(
            r"GLOBAL (\S+)", str(error)
        ):  # torch's text goes on to say how to run it all the same
            raise CheckpointError(
                f"{file} must hold tensors and nothing else; got a pickle that asks for {asked[1]}, which was not run. "
                "Don't trust where it is from; get the weights as safetensors."
            ) from None
        raise _damaged(file, error) from error
    except (RuntimeError, EOFError, LookupError, ValueError) as error:
        raise _damaged(file, error) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise _damaged(file, TypeError("something other than a dict of tensors"))
    return dict(tensors)


def _damaged(file: Path, error: Exception) -> CheckpointError:
    told = str(error).partition("\n")[0].rstrip(".")
    return CheckpointError(f"{file} must be a whole file of tensors; got: {told}. Download or copy it again.")
