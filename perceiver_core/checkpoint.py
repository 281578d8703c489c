"""Checkpoints in Hugging Face's layout: config.json and model.safetensors (or pytorch_model.bin), sharded or not.

Torch is imported where tensors are read, so that `inspect` stays cheap.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from perceiver_core.config import PerceiverConfig
from perceiver_core.sources import CheckpointError, Progress, checkpoint_folder, digest_of, first_names
from perceiver_core.weights import find_weights, read_headers, read_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["CheckpointError", "CheckpointInfo", "inspect", "load", "save"]

_NO_CHANGES: Mapping[str, Any] = MappingProxyType({})
_HEAD = "perceiver."  # where a PerceiverFor... class has its PerceiverModel


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds. Of .bin files the last three are None: their tensors would have to be read."""

    path: Path  #: the folder on this machine
    architecture: str
    config: PerceiverConfig
    weights: tuple[Path, ...]
    digest: str  #: the SHA-256 over config.json and the weights' files
    bytes: int  #: of the weights' files
    tensors: int | None
    parameters: int | None  #: their elements, less the buffers of BatchNorms
    dtypes: tuple[str, ...] | None


def inspect(path: str | Path, *, progress: Progress | None = None) -> CheckpointInfo:
    """Describes a checkpoint, from wherever sources.checkpoint_folder finds it, without reading a tensor.

    Raises CheckpointError if something is missing or truncated.
    """
    folder = checkpoint_folder(path, progress=progress)
    config = PerceiverConfig.from_pretrained(folder)
    architecture = _architecture(folder, config)
    weights = find_weights(folder)
    contents = read_headers(weights)
    return CheckpointInfo(
        path=folder,
        architecture=architecture,
        config=config,
        weights=weights,
        digest=digest_of((folder / "config.json", *weights)),
        bytes=sum(file.stat().st_size for file in weights),
        tensors=contents.tensors,
        parameters=contents.parameters,
        dtypes=contents.dtypes,
    )


def load(
    path: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device = "cpu",
    reference: str | None = None,
    architecture: type[nn.Module] | None = None,
    ignore_mismatched_sizes: bool = False,
    changes: Mapping[str, Any] = _NO_CHANGES,
) -> nn.Module:
    """The model of a checkpoint, in eval mode and without gradients.

    `dtype` is a floating-point dtype or its name; None and "auto" keep that of the file. `reference` ("hf" or
    "deepmind") and `changes` are applied to the config, as PerceiverConfig.replaced does. Every tensor must be there,
    with the right shape, and no other.

    With an `architecture` other than the checkpoint's (another PerceiverFor... class, or PerceiverModel) only the
    latents, the encoder and the input preprocessor must be all there; what else the class needs is freshly
    initialised, and so, with `ignore_mismatched_sizes`, are tensors of another shape. A UserWarning names them: such a
    model must be trained. Raises CheckpointError.
    """
    import torch

    to = _dtype(dtype)
    folder = checkpoint_folder(path)
    written = PerceiverConfig.from_pretrained(folder)
    kind = _class(folder, written) if architecture is None else architecture
    config = written.replaced(**changes, **({} if reference is None else {"reference": reference}))
    found = read_tensors(find_weights(folder))
    try:
        with torch.device(
            "meta"
        ):  # no memory and no random numbers: the file's tensors become the parameters
            model = kind(config)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'} must describe a model; got: {error}") from error
    expected: dict[str, Tensor] = model.state_dict()
    if kind.__name__ in written.architectures or not written.architectures:
        fresh = _strict(folder, found, expected, ignore_mismatched_sizes)
    else:
        found = _renamed(found, expected)
        fresh = _partial(folder, found, expected, ignore_mismatched_sizes, kind.__name__, written)
    _warn(folder, kind.__name__, fresh, found.keys() - expected.keys())
    if fresh and to is None:
        to = next(tensor.dtype for tensor in found.values() if tensor.is_floating_point())
    found = {name: tensor for name, tensor in found.items() if name in expected}
    found |= _initial_values(model, fresh, config)
    state: dict[str, Tensor] = {}
    while found:  # one at a time, so that the model is never in memory twice
        name, tensor = found.popitem()
        state[name] = tensor.to(device, to) if tensor.is_floating_point() else tensor.to(device)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def save(model: nn.Module, path: str | Path) -> None:
    """Writes config.json and model.safetensors, so that `load` and transformers can read them back.

    `model` is one of heads.ARCHITECTURES.
    """
    from safetensors.torch import save_file

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    dtype = next(str(tensor.dtype) for tensor in tensors.values() if tensor.is_floating_point())
    config = cast(PerceiverConfig, model.config)
    extra = {name: value for name, value in config.extra.items() if name != "torch_dtype"}
    extra |= {"dtype": dtype.removeprefix("torch.")}
    # Loaded tensors may be a mapping of the very file that is written here, so it is replaced, never written over.
    temporary = folder / "model.safetensors.tmp"
    temporary.touch()
    mode = temporary.stat().st_mode  # as the umask has it; save_file lets nobody but the owner read
    save_file(tensors, temporary, metadata={"format": "pt"})
    temporary.chmod(mode)
    os.replace(temporary, folder / "model.safetensors")
    replace(config, architectures=(type(model).__name__,), extra=extra).save_pretrained(folder)


def _architecture(folder: Path, config: PerceiverConfig) -> str:
    if len(config.architectures) != 1:
        raise CheckpointError(
            f"{folder / 'config.json'}: architectures must have one name; got {list(config.architectures)}. "
            "Write the class that these weights are for, such as PerceiverForMultimodalAutoencoding."
        )
    return config.architectures[0]


def _class(folder: Path, config: PerceiverConfig) -> type[nn.Module]:
    from perceiver_core.heads import ARCHITECTURES

    name = _architecture(folder, config)
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{folder / 'config.json'}: architectures must name one of {sorted(ARCHITECTURES)}; got {name!r}. "
            "Choose a checkpoint of one of these."
        )
    return ARCHITECTURES[name]


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    import torch

    if dtype is None or dtype == "auto":
        return None
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(
            f'dtype must be None, "auto" or a floating-point dtype such as torch.bfloat16 or "bfloat16"; got {dtype!r}.'
        )
    return found


def _misshapen(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Tensors whose shape is not the one that the model has, and what to say of each."""
    return {
        name: f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    }


def _strict(
    folder: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignore_mismatched_sizes: bool
) -> set[str]:
    """Refuses tensors that are not exactly those that the config asks for; returns those to initialise."""
    misshapen = _misshapen(found, expected)
    text = _problems(
        missing=expected.keys() - found.keys(),
        unexpected=found.keys() - expected.keys(),
        misshapen=() if ignore_mismatched_sizes else misshapen.values(),
    )
    if text:
        raise CheckpointError(
            f"{folder}: the weights must be the {len(expected)} tensors that config.json describes; got {text}. "
            "Check that config.json belongs to these weights."
        )
    return set(misshapen)


def _partial(
    folder: Path,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    ignore_mismatched_sizes: bool,
    kind: str,
    written: PerceiverConfig,
) -> set[str]:
    """Refuses weights of another encoder; returns the tensors to initialise."""
    parts = ["embeddings.", "encoder.", "input_preprocessor."]
    if not any(name.removeprefix(_HEAD).startswith(parts[2]) for name in expected):
        parts.pop()  # a bare PerceiverModel takes tokens, whatever made them
    trunk = tuple(_HEAD * _has_head(expected) + part for part in parts)
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    misshapen = _misshapen(found, expected)
    text = _problems(
        missing={name for name in missing if name.startswith(trunk)},
        unexpected={name for name in unexpected if name.startswith(trunk)},
        misshapen=[
            told for name, told in misshapen.items() if name.startswith(trunk) or not ignore_mismatched_sizes
        ],
    )
    if text:
        raise CheckpointError(
            f"{folder}: a {kind} out of a checkpoint of {first_names(written.architectures)} must have its latents, "
            f"encoder and input preprocessor; got {text}. Choose a checkpoint of {kind}, or another class."
        )
    return missing | misshapen.keys()


def _problems(**names: Any) -> str:
    said = {"misshapen": "of the wrong shape"}
    return "; ".join(
        f"{len(those)} {said.get(kind, kind)}: {first_names(those)}" for kind, those in names.items() if those
    )


def _has_head(names: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(_HEAD) for name in names)


def _renamed(found: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that a bare PerceiverModel has for them, or a PerceiverFor... class."""
    if _has_head(found) and not _has_head(expected):
        return {name.removeprefix(_HEAD): tensor for name, tensor in found.items()}
    if _has_head(expected) and not _has_head(found):
        return {_HEAD + name: tensor for name, tensor in found.items()}
    return found


def _warn(folder: Path, kind: str, fresh: set[str], left_out: set[str]) -> None:
    told = []
    if fresh:
        told.append(
            f"{len(fresh)} tensors are freshly initialised, so train it before you use it "
            f"({first_names(fresh, limit=len(fresh))})"
        )
    if left_out:
        told.append(f"{len(left_out)} of the checkpoint are left out ({first_names(left_out)})")
    if told:
        warnings.warn(f"{folder} as a {kind}: {'; '.join(told)}.", UserWarning, stacklevel=3)


def _initial_values(model: nn.Module, names: set[str], config: PerceiverConfig) -> dict[str, Tensor]:
    """First values for these tensors of a model on the meta device."""
    from perceiver_core.pretrained import initialise

    for owner in sorted({name.rpartition(".")[0] for name in names}):
        module = model.get_submodule(owner)
        initialise(module.to_empty(device="cpu", recurse=False), config, recurse=False)
    state: dict[str, Tensor] = model.state_dict()
    return {name: state[name] for name in names}
