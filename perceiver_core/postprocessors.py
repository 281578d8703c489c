"""From the decoder's output channels to logits, samples and pixels. Shapes: B batch, M output points, C channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig


class PerceiverAudioPostprocessor(nn.Module):
    """Projects each output point to a patch of samples."""

    def __init__(self, config: PerceiverConfig, in_channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, config.samples_per_patch)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, M, C) -> (B, M * samples_per_patch)."""
        return self.classifier(inputs).flatten(1)


class PerceiverClassificationPostprocessor(nn.Module):
    """Projects the one output point to label logits."""

    def __init__(self, config: PerceiverConfig, in_channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, config.num_labels)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 1, C) -> (B, num_labels)."""
        return self.classifier(inputs)[:, 0]


class PerceiverProjectionPostprocessor(nn.Module):
    """Projects each output point to out_channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, out_channels)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, M, C) -> (B, M, out_channels)."""
        return self.classifier(inputs)


class PerceiverMultimodalPostprocessor(nn.Module):
    """Splits the output points among the modalities, in the order of their names, and postprocesses each."""

    def __init__(self, modalities: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.modalities = nn.ModuleDict(modalities)

    def forward(self, inputs: Tensor, modality_sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """(B, M, C) -> {modality: output}; modality_sizes has the number of points of each that is to be returned."""
        names = sorted(modality_sizes)
        parts = torch.split(inputs, [modality_sizes[name] for name in names], dim=1)
        return {name: self.modalities[name](part) for name, part in zip(names, parts, strict=True)}
