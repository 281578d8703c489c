"""What all models share: their config, and how they are opened, saved and given their first weights."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

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
        cls, path: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Self:
        """Opens a checkpoint folder of this architecture; see checkpoint.load."""
        from perceiver_core import checkpoint

        model = checkpoint.load(path, dtype=dtype, device=device)
        if not isinstance(model, cls):
            raise checkpoint.CheckpointError(
                f"{path} must be a checkpoint of {cls.__name__}; got {type(model).__name__}. "
                f"Use {type(model).__name__}.from_pretrained."
            )
        return model

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
