"""What all models share: their config, and how they are opened, saved and given their first weights."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from perceiver_core.config import PerceiverConfig


class PerceiverPreTrainedModel(nn.Module):
    """A model with a config, which a checkpoint can hold."""

    base_model_prefix: ClassVar[str] = "perceiver"
    config: PerceiverConfig

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """The number of weights."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: str | torch.device = "cpu",
        reference: str | None = None,
        ignore_mismatched_sizes: bool = False,
        **config_changes: Any,
    ) -> Self:
        """Opens a checkpoint: a folder, a URL, a hub id or "demo"; in eval mode, ready to be trained.

        `dtype` (in transformers 4 `torch_dtype`) is that of the file unless given. Other keywords change fields of the
        config, such as num_labels=5. For the rest, and for checkpoints of another class, see checkpoint.load.
        """
        from perceiver_core import checkpoint

        unknown = sorted(config_changes.keys() - {f.name for f in fields(PerceiverConfig)})
        if unknown:
            raise TypeError(
                f"from_pretrained takes dtype, device, reference, ignore_mismatched_sizes and the config's fields; got "
                f"{', '.join(unknown)}. Leave out what is meant for a hub client or an accelerator's map."
            )
        model = checkpoint.load(
            pretrained_model_name_or_path,
            dtype=torch_dtype if dtype is None else dtype,
            device=device,
            reference=reference,
            architecture=cls,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            changes=config_changes,
        )
        return cast(Self, model.requires_grad_(True))

    def save_pretrained(self, path: str | Path) -> None:
        """Writes a checkpoint folder; see checkpoint.save."""
        from perceiver_core import checkpoint

        checkpoint.save(self, path)


def initialise(module: nn.Module, config: PerceiverConfig, recurse: bool = True) -> None:
    """Upstream's initial values: N(0, initializer_range) for all but biases (0) and normalisations (the identity)."""
    for part in module.modules() if recurse else [module]:
        if isinstance(part, nn.LayerNorm | nn.BatchNorm2d):
            part.reset_parameters()
            continue
        for name, parameter in part.named_parameters(recurse=False):
            if name == "bias":
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=config.initializer_range)
