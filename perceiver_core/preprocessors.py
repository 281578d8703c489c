"""From raw inputs to the tokens that the encoder attends to.

A token is [content | position features], or their sum. Images are in image_preprocessor.py, several modalities
at once in modalities.py.
Shapes: B batch, N tokens, C channels, T frames, S audio samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.positions import build_position_encoding


class Preprocessed(NamedTuple):
    """What a preprocessor returns: tokens (B, N, C), tokens of each modality, and the tokens without positions."""

    inputs: Tensor
    modality_sizes: dict[str, int] | None
    inputs_without_pos: Tensor | dict[str, Tensor]


class Preprocessor(nn.Module):
    """Turns an input into tokens of `num_channels`.

    `pos` and `network_input_is_1d` are part of upstream's signature; where they are not named, they have no effect,
    there as here.
    """

    @property
    def num_channels(self) -> int:
        """Channels of a token."""
        raise NotImplementedError


class PositionedPreprocessor(Preprocessor):
    """A preprocessor that gives its content (B, *grid, C) positions: appended, or added where channels are equal."""

    def build_positions(
        self, position_encoding_type: str, concat_or_add_pos: str, project_pos_dim: int, **kwargs: Any
    ) -> None:
        """For subclasses to call last: weights come in upstream's order, which puts the content's first."""
        if concat_or_add_pos not in ("concat", "add"):
            raise ValueError(f"concat_or_add_pos must be 'concat' or 'add'; got {concat_or_add_pos!r}.")
        self.concat_or_add_pos = concat_or_add_pos
        self.position_embeddings, self.positions_projection = build_position_encoding(
            position_encoding_type, project_pos_dim, **kwargs
        )
        self.position_channels = (
            project_pos_dim if project_pos_dim > 0 else self.position_embeddings.output_size()
        )

    @property
    def content_channels(self) -> int:
        """Channels of a token before its position."""
        raise NotImplementedError

    @property
    def num_channels(self) -> int:
        adds = self.concat_or_add_pos == "add"
        return self.position_channels if adds else self.content_channels + self.position_channels

    def with_positions(self, x: Tensor, interpolate: bool = False) -> Tensor:
        """Content (B, *grid, C) -> tokens (B, N, num_channels)."""
        features = self.position_embeddings.of_inputs(x.shape[1:-1], x.device, interpolate)
        features = self.positions_projection(features.to(x.dtype))  # (N, positions)
        x = x.flatten(1, -2)  # (B, N, C)
        if self.concat_or_add_pos == "concat":
            return torch.cat([x, features.expand(x.shape[0], -1, -1)], dim=-1)
        if x.shape[-1] != features.shape[-1]:
            raise ValueError(
                f"With concat_or_add_pos='add' the content and its positions must have as many channels; got "
                f"{x.shape[-1]} and {features.shape[-1]}. Set project_pos_dim={x.shape[-1]}, or use 'concat'."
            )
        return x + features


class PerceiverTextPreprocessor(Preprocessor):
    """Embeds token ids and adds their positions."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.d_model)

    @property
    def num_channels(self) -> int:
        return self.embeddings.embedding_dim

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        network_input_is_1d: bool = True,
        interpolate_pos_encoding: bool = False,
    ) -> Preprocessed:
        """Ids (B, N) -> (B, N, d_model)."""
        self.check(inputs)
        embedded = self.embeddings(inputs)  # (B, N, d_model)
        return Preprocessed(embedded + self.position_embeddings.weight[: inputs.shape[1]], None, embedded)

    def check(self, inputs: Tensor) -> None:
        """Refuses what is not ids of the vocabulary, or too many of them."""
        limit, ids = self.position_embeddings.num_embeddings, self.embeddings.num_embeddings
        integer = not (inputs.is_floating_point() or inputs.dtype == torch.bool)
        if inputs.ndim != 2 or not integer or not 0 < inputs.shape[1] <= limit:
            raise ValueError(
                f"Text inputs must be integer ids of shape (batch, length), length from 1 to {limit}; got "
                f"{inputs.dtype} of shape {tuple(inputs.shape)}. Tokenize with PerceiverTokenizer and truncation=True."
            )
        if not torch.compiler.is_compiling() and inputs.numel() and not inputs.is_meta:  # it looks at values
            low, high = int(inputs.min()), int(inputs.max())
            if low < 0 or high >= ids:
                raise ValueError(
                    f"Text inputs must be ids from 0 to {ids - 1}; got {low} to {high}. "
                    "Is this the checkpoint's tokenizer?"
                )


class PerceiverAudioPreprocessor(PositionedPreprocessor):
    """Cuts sound into patches of samples and gives them positions."""

    def __init__(
        self,
        config: PerceiverConfig,
        prep_type: str = "patches",
        samples_per_patch: int = 96,
        position_encoding_type: str = "fourier",
        concat_or_add_pos: str = "concat",
        out_channels: int = 64,  # part of upstream's signature; only sized its projection of positions
        project_pos_dim: int = -1,
        **position_encoding_kwargs: Any,
    ) -> None:
        super().__init__()
        if prep_type != "patches":
            raise ValueError(f"prep_type must be 'patches'; got {prep_type!r}. Leave it at the default.")
        self.samples_per_patch = samples_per_patch
        self.build_positions(
            position_encoding_type, concat_or_add_pos, project_pos_dim, **position_encoding_kwargs
        )

    @property
    def content_channels(self) -> int:
        return self.samples_per_patch

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        network_input_is_1d: bool = True,
        interpolate_pos_encoding: bool = False,
    ) -> Preprocessed:
        """(B, S, 1) -> (B, S / samples_per_patch, num_channels)."""
        samples, shape = self.samples_per_patch, inputs.shape
        if len(shape) != 3 or shape[2] != 1 or shape[1] % samples or inputs.numel() == 0:
            raise ValueError(
                f"The audio input must have shape (batch, samples, 1), samples a multiple of {samples}; "
                f"got {tuple(shape)}. Choose one channel; cut the sound or pad it with zeros."
            )
        patches = inputs.reshape(shape[0], -1, samples)  # (B, N, samples_per_patch)
        return Preprocessed(self.with_positions(patches), None, patches)


class PerceiverOneHotPreprocessor(Preprocessor):
    """Makes one token of a one-hot label."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.num_labels = config.num_labels

    @property
    def num_channels(self) -> int:
        return self.num_labels

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        network_input_is_1d: bool = True,
        interpolate_pos_encoding: bool = False,
    ) -> Preprocessed:
        """(B, num_labels) -> (B, 1, num_labels)."""
        if inputs.ndim != 2 or inputs.shape[1] != self.num_labels:
            raise ValueError(
                f"The label input must have shape (batch, {self.num_labels}); got {tuple(inputs.shape)}. "
                "Give one score for each of the config's labels."
            )
        token = inputs[:, None, :]  # (B, 1, num_labels)
        return Preprocessed(token, None, token)
