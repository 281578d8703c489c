"""From the decoder's output channels to logits, samples and pixels.

`pos` and `modality_sizes` are part of upstream's signature, without effect there too. Shapes: B batch, M output points,
C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig


class PerceiverAudioPostprocessor(nn.Module):
    """Projects each output point to a patch of samples."""

    def __init__(self, config: PerceiverConfig, in_channels: int, postproc_type: str = "patches") -> None:
        super().__init__()
        if postproc_type != "patches":
            raise ValueError(
                f"postproc_type must be 'patches'; got {postproc_type!r}. Leave it at the default."
            )
        self.classifier = nn.Linear(in_channels, config.samples_per_patch)

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        modality_sizes: Mapping[str, int] | None = None,
    ) -> Tensor:
        """(B, M, C) -> (B, M * samples_per_patch)."""
        return self.classifier(inputs).flatten(1)


class PerceiverClassificationPostprocessor(nn.Module):
    """Projects the one output point to label logits."""

    def __init__(self, config: PerceiverConfig, in_channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, config.num_labels)

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        modality_sizes: Mapping[str, int] | None = None,
    ) -> Tensor:
        """(B, 1, C) -> (B, num_labels)."""
        return self.classifier(inputs)[:, 0]


class PerceiverProjectionPostprocessor(nn.Module):
    """Projects each output point to out_channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, out_channels)

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        modality_sizes: Mapping[str, int] | None = None,
    ) -> Tensor:
        """(B, M, C) -> (B, M, out_channels)."""
        return self.classifier(inputs)
