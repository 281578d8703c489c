"""From raw inputs to the tokens that the encoder attends to.

A token is [content | position features | trainable padding], with as many channels for every modality.
Shapes: B batch, N tokens, C channels, T frames, S audio samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.positions import PositionEncoding, build_position_encoding


class Preprocessor(nn.Module):
    """Turns one modality's input into tokens (B, N, num_channels)."""

    @property
    def num_channels(self) -> int:
        """Channels of a token."""
        raise NotImplementedError


class PerceiverImagePreprocessor(Preprocessor):
    """Cuts images or videos into patches and appends their positions."""

    def __init__(
        self,
        config: PerceiverConfig,
        prep_type: str = "conv",
        spatial_downsample: int = 4,
        temporal_downsample: int = 1,
        position_encoding_type: str = "fourier",
        in_channels: int = 3,
        **position_encoding_kwargs: Any,
    ) -> None:
        super().__init__()
        if prep_type != "patches":
            raise ValueError(
                f"prep_type must be 'patches'; got {prep_type!r}. No other is supported: pass prep_type='patches'."
            )
        self.spatial_downsample = spatial_downsample
        self.temporal_downsample = temporal_downsample
        self.in_channels = in_channels
        self.position_embeddings = build_position_encoding(position_encoding_type, **position_encoding_kwargs)

    @property
    def num_channels(self) -> int:
        patch = self.in_channels * self.spatial_downsample**2 * self.temporal_downsample
        return patch + self.position_embeddings.output_size()

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, N, num_channels), tokens in (t, y, x) order."""
        t, s, c = self.temporal_downsample, self.spatial_downsample, self.in_channels
        shape = inputs.shape
        fits = len(shape) == 5 and shape[2] == c and not (shape[1] % t or shape[3] % s or shape[4] % s)
        if not fits or inputs.numel() == 0:
            raise ValueError(
                f"The image input must have shape (batch, frames, {c}, height, width), frames a multiple of {t}, "
                f"height and width of {s}; got {tuple(shape)}. "
                "Put channels before height and width; resize, crop or pad."
            )
        x = inputs.unflatten(4, (-1, s)).unflatten(3, (-1, s)).unflatten(1, (-1, t))
        # (B, T/t, t, C, H/s, s, W/s, s) -> (B, T/t, H/s, W/s, t, s, s, C)
        x = x.permute(0, 1, 4, 6, 2, 5, 7, 3)
        return _with_positions(x.flatten(4), self.position_embeddings)


class PerceiverAudioPreprocessor(Preprocessor):
    """Cuts sound into patches of samples and appends their positions."""

    def __init__(
        self,
        config: PerceiverConfig,
        prep_type: str = "patches",
        samples_per_patch: int = 96,
        position_encoding_type: str = "fourier",
        **position_encoding_kwargs: Any,
    ) -> None:
        super().__init__()
        if prep_type != "patches":
            raise ValueError(f"prep_type must be 'patches'; got {prep_type!r}. Leave it at the default.")
        self.samples_per_patch = samples_per_patch
        self.position_embeddings = build_position_encoding(position_encoding_type, **position_encoding_kwargs)

    @property
    def num_channels(self) -> int:
        return self.samples_per_patch + self.position_embeddings.output_size()

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, S, 1) -> (B, S / samples_per_patch, num_channels)."""
        samples, shape = self.samples_per_patch, inputs.shape
        if len(shape) != 3 or shape[2] != 1 or shape[1] % samples or inputs.numel() == 0:
            raise ValueError(
                f"The audio input must have shape (batch, samples, 1), samples a multiple of {samples}; "
                f"got {tuple(shape)}. Choose one channel; cut the sound or pad it with zeros."
            )
        return _with_positions(
            inputs.reshape(inputs.shape[0], -1, self.samples_per_patch), self.position_embeddings
        )


class PerceiverOneHotPreprocessor(Preprocessor):
    """Makes one token of a one-hot label."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.num_labels = config.num_labels

    @property
    def num_channels(self) -> int:
        return self.num_labels

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, num_labels) -> (B, 1, num_labels)."""
        if inputs.ndim != 2 or inputs.shape[1] != self.num_labels:
            raise ValueError(
                f"The label input must have shape (batch, {self.num_labels}); got {tuple(inputs.shape)}. "
                "Give one score for each of the config's labels."
            )
        return inputs[:, None, :]


class PerceiverMultimodalPreprocessor(Preprocessor):
    """Joins the tokens of several modalities, in the order of their names, padded to the same number of channels.

    A token is replaced by its modality's mask token with that modality's probability in `mask_probs`. One-hot
    modalities that are always replaced need not be given.
    """

    def __init__(
        self,
        modalities: Mapping[str, Preprocessor],
        mask_probs: Mapping[str, float] | None = None,
        min_padding_size: int = 2,
    ) -> None:
        super().__init__()
        self.modalities = nn.ModuleDict(modalities)
        self.mask_probs = dict(mask_probs or {})
        self.channels = max(p.num_channels for p in modalities.values()) + min_padding_size
        self.padding = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(1, self.channels - p.num_channels))
                for name, p in modalities.items()
            }
        )
        self.mask = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(1, self.channels)) for name in self.mask_probs}
        )

    @property
    def num_channels(self) -> int:
        return self.channels

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """{modality: input} -> (B, N, num_channels), in the dtype of the weights."""
        batch_size = self._check(inputs)
        tokens = [self._tokens(name, inputs, batch_size) for name in sorted(self.modalities)]
        return torch.cat(tokens, dim=1)

    def _tokens(self, name: str, inputs: Mapping[str, Tensor], batch_size: int) -> Tensor:
        if self._is_constant(name):
            # Upstream computes (1 - m) x + m token: that lets a NaN label through, draws random numbers for a certain
            # outcome, and breaks half precision with its float32 m.
            return self.mask[name].expand(batch_size, 1, -1)
        padding = self.padding[name]
        tokens = self.modalities[name](inputs[name].to(padding.dtype))  # (B, N, C - padding)
        tokens = torch.cat([tokens, padding.expand(*tokens.shape[:2], -1)], dim=-1)  # (B, N, C)
        probability = self.mask_probs.get(name, 0.0)
        if probability > 0:
            masked = torch.rand(*tokens.shape[:2], 1, device=tokens.device) < probability  # (B, N, 1)
            tokens = torch.where(masked, self.mask[name], tokens)
        return tokens

    def _is_constant(self, name: str) -> bool:
        always_masked = self.mask_probs.get(name, 0.0) == 1
        return always_masked and isinstance(self.modalities[name], PerceiverOneHotPreprocessor)

    def _check(self, inputs: Mapping[str, Tensor]) -> int:
        """Refuses missing, unknown and unequal inputs; returns the batch size."""
        required = [name for name in sorted(self.modalities) if not self._is_constant(name)]
        if not set(required) <= set(inputs) <= set(self.modalities):
            optional = sorted(set(self.modalities) - set(required))
            raise ValueError(
                f"inputs must have the keys {required}, may have {optional} and no other; got {sorted(inputs)}. "
                "Give zeros for sound or pictures that do not exist."
            )
        for name in required:
            if not inputs[name].is_floating_point():
                raise ValueError(
                    f"The {name} input must be floating point; got {inputs[name].dtype}. "
                    "Scale pixels to [0, 1] and sound to [-1, 1]."
                )
        sizes = {name: inputs[name].shape[0] for name in required}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"All inputs must have the same batch size; got {sizes}. Give one of each per sample."
            )
        return sizes[required[0]]


def _with_positions(x: Tensor, encoding: PositionEncoding) -> Tensor:
    """Content (B, *index_dims, C) -> (B, N, C + positions)."""
    features = encoding.of_inputs(x.shape[1:-1], x.device).to(x.dtype)  # (N, positions)
    return torch.cat([x.flatten(1, -2), features.expand(x.shape[0], -1, -1)], dim=-1)
