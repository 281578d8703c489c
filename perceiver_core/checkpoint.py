"""Checkpoint folders in Hugging Face's layout: config.json and model.safetensors (or pytorch_model.bin).

Torch is imported where tensors are read, so that `inspect` stays cheap.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from perceiver_core.config import PerceiverConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


DEMO = Path(__file__).parent / "demo"  #: the checkpoint that comes with the package, by the name "demo"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint folder holds. `digest` is the SHA-256 over config.json and the weights' files."""

    path: Path
    architecture: str
    config: PerceiverConfig
    weights: tuple[Path, ...]
    digest: str


def inspect(path: str | Path) -> CheckpointInfo:
    """Describes a checkpoint, a folder or "demo", without reading a tensor.

    Raises CheckpointError if something is missing or truncated.
    """
    folder = _folder(path)
    config, architecture = _read_config(folder)
    weights = _find_weights(folder)
    for file in weights:
        if file.suffix == ".safetensors":
            _check_header(file)
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weights):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return CheckpointInfo(folder, architecture, config, weights, digest.hexdigest())


def load(
    path: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> nn.Module:
    """The model of a checkpoint, in eval mode and without gradients; `dtype` None keeps that of the file.

    Every tensor must be there, with the right shape, and no other. Raises CheckpointError.
    """
    import torch

    from perceiver_core.heads import ARCHITECTURES

    folder = _folder(path)
    config, architecture = _read_config(folder)
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{folder / 'config.json'}: architectures must name one of {sorted(ARCHITECTURES)}; got {architecture!r}. "
            "Choose a checkpoint of one of these."
        )
    tensors: dict[str, Tensor] = {}
    for file in _find_weights(folder):
        tensors.update(_read_tensors(file))
    try:
        with torch.device(
            "meta"
        ):  # no memory and no random numbers: the file's tensors become the parameters
            model = ARCHITECTURES[architecture](config)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'} must describe a model; got: {error}") from error
    _compare(folder, tensors, model.state_dict())
    tensors = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def save(model: nn.Module, path: str | Path) -> None:
    """Writes config.json and model.safetensors, so that `load` and transformers can read them back.

    `model` is one of heads.ARCHITECTURES.
    """
    from safetensors.torch import save_file

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config = cast(PerceiverConfig, model.config)
    extra = {name: value for name, value in config.extra.items() if name != "torch_dtype"} | {"dtype": dtype}
    config = replace(config, architectures=(type(model).__name__,), extra=extra)
    # Loaded tensors may be a mapping of the very file that is written here, so it is replaced, never written over.
    temporary = folder / "model.safetensors.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, folder / "model.safetensors")
    config.to_json_file(folder / "config.json")


def _folder(path: str | Path) -> Path:
    return DEMO if path == "demo" else Path(path)  # a folder of that name is ./demo


def _read_config(folder: Path) -> tuple[PerceiverConfig, str]:
    file = folder / "config.json"
    if not folder.is_dir():
        raise CheckpointError(
            f"A checkpoint must be a folder; got {str(folder)!r}, which is none. Check the path."
        )
    if not file.is_file():
        raise CheckpointError(
            f"{folder} must have a config.json; got {_names(path.name for path in folder.iterdir())}. "
            "Give the folder that save_pretrained wrote."
        )
    try:
        config = PerceiverConfig.from_json_file(file)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} must be the config of a Perceiver; got: {error}") from error
    if len(config.architectures) != 1:
        raise CheckpointError(
            f"{file}: architectures must have one name; got {list(config.architectures)}. "
            "Write the class that these weights are for, such as PerceiverForMultimodalAutoencoding."
        )
    return config, config.architectures[0]


def _find_weights(folder: Path) -> tuple[Path, ...]:
    """The files with the tensors: safetensors if there are any, whole or in the shards that an index names."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return (folder / name,)
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, LookupError, TypeError) as error:
                raise CheckpointError(f"{index} must be an index of weights; got: {error!r}.") from error
            missing = [
                shard for shard in shards if Path(shard).name != shard or not (folder / shard).is_file()
            ]
            if missing:
                raise CheckpointError(
                    f"{index} names files of its own folder; got {_names(missing)}, not there."
                )
            return tuple(folder / shard for shard in shards)
    raise CheckpointError(
        f"{folder} must have model.safetensors or pytorch_model.bin; got {_names(p.name for p in folder.iterdir())}. "
        "Copy the weights next to config.json."
    )


def _check_header(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):  # reads the header and compares it with the file's size
            pass
    except SafetensorError as error:
        raise _damaged(file, error) from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        raise _damaged(file, error) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise _damaged(file, TypeError("something other than a dict of tensors"))
    return tensors


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file} must be a whole file of tensors; got: {error}. Download or copy it again."
    )


def _compare(folder: Path, found: dict[str, Tensor], expected: dict[str, Any]) -> None:
    """Refuses tensors that are not exactly those that the config asks for."""
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of the wrong shape": sorted(shapes),
    }
    text = "; ".join(f"{len(names)} {kind}: {_names(names)}" for kind, names in problems.items() if names)
    if text:
        raise CheckpointError(
            f"{folder}: the weights must be the {len(expected)} tensors that config.json describes; got {text}. "
            "Check that config.json belongs to these weights."
        )


def _names(names: Iterable[str], limit: int = 3) -> str:
    """The first few names, for an error's text."""
    every = sorted(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more if every else "nothing"
