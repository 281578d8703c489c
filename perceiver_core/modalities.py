"""Several modalities in one model: their tokens and queries are padded to as many channels, joined, and parted again.

Shapes: B batch, N input tokens, M output points, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import PerceiverAbstractDecoder, PerceiverBasicDecoder
from perceiver_core.output_points import check_modalities
from perceiver_core.preprocessors import (
    PerceiverOneHotPreprocessor,
    PerceiverTextPreprocessor,
    Preprocessed,
    Preprocessor,
)


class PerceiverMultimodalPreprocessor(Preprocessor):
    """Joins the tokens of several modalities, in the order of their names, padded to the same number of channels.

    A token is replaced by its modality's mask token with that modality's probability in `mask_probs`, in training and
    outside it. One-hot modalities that are always replaced need not be given.
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

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        pos: Tensor | None = None,
        network_input_is_1d: bool = True,
        interpolate_pos_encoding: bool = False,
    ) -> Preprocessed:
        """{modality: input} -> (B, N, num_channels), in the dtype of the weights."""
        batch_size = self.check(inputs)
        tokens: dict[str, Tensor] = {}
        without_positions: dict[str, Tensor] = {}
        for name, padding in self.padding.items():
            if self.is_constant(name):
                # Upstream computes (1 - m) x + m token: that lets a NaN label through, draws random numbers for a
                # certain outcome, and breaks half precision with its float32 m.
                tokens[name] = self.mask[name].expand(batch_size, 1, -1)
                continue
            preprocessor = cast(Preprocessor, self.modalities[name])
            x, _, content = preprocessor(self._cast(inputs[name], padding))  # (B, N, C - padding)
            without_positions[name] = cast(Tensor, content)
            tokens[name] = self._masked(
                name, torch.cat([x, padding.expand(*x.shape[:2], -1)], dim=-1)
            )  # (B, N, C)
        names = sorted(tokens)
        sizes = {name: tokens[name].shape[1] for name in names}
        return Preprocessed(torch.cat([tokens[name] for name in names], dim=1), sizes, without_positions)

    @staticmethod
    def _cast(x: Tensor, like: Tensor) -> Tensor:
        return x.to(like.dtype) if x.is_floating_point() else x

    def _masked(self, name: str, tokens: Tensor) -> Tensor:
        probability = self.mask_probs.get(name, 0.0)
        if probability <= 0:
            return tokens
        masked = torch.bernoulli(torch.full(tokens.shape[:2], probability, device=tokens.device))  # (B, N)
        return torch.where(masked.bool()[..., None], self.mask[name], tokens)

    def is_constant(self, name: str) -> bool:
        """Whether a modality is one token that is always replaced by its mask token."""
        always_masked = self.mask_probs.get(name, 0.0) == 1
        return always_masked and isinstance(self.modalities[name], PerceiverOneHotPreprocessor)

    def check(self, inputs: Mapping[str, Tensor]) -> int:
        """Refuses missing, unknown and unequal inputs; returns the batch size."""
        required = [name for name in sorted(self.modalities) if not self.is_constant(name)]
        if not set(required) <= set(inputs) <= set(self.modalities):
            optional = sorted(set(self.modalities) - set(required))
            raise ValueError(
                f"inputs must have the keys {required}, may have {optional} and no other; got {sorted(inputs)}. "
                "Give zeros for sound or pictures that do not exist."
            )
        for name in required:
            is_text = isinstance(self.modalities[name], PerceiverTextPreprocessor)
            if not is_text and not inputs[name].is_floating_point():
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


class PerceiverMultimodalDecoder(PerceiverAbstractDecoder):
    """One decoder for the queries of several modalities, which their own decoders make and this one pads."""

    def __init__(
        self,
        config: PerceiverConfig,
        modalities: Mapping[str, PerceiverAbstractDecoder],
        num_outputs: int
        | None,  # this and subsampled_index_dims: of upstream's signature, without effect there too
        output_num_channels: int,
        min_padding_size: int = 2,
        subsampled_index_dims: Mapping[str, Any] | None = None,
        **decoder_kwargs: Any,
    ) -> None:
        super().__init__()
        self.modalities = nn.ModuleDict(modalities)
        self.channels = max(decoder.num_query_channels for decoder in modalities.values()) + min_padding_size
        self.decoder = PerceiverBasicDecoder(
            config,
            output_num_channels=output_num_channels,
            position_encoding_type="none",
            num_channels=self.channels,
            **decoder_kwargs,
        )
        self.padding = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(1, self.channels - decoder.num_query_channels))
                for name, decoder in modalities.items()
            }
        )

    @property
    def num_query_channels(self) -> int:
        return self.channels

    @property
    def queries_are_of_inputs(self) -> bool:
        return any(self._of(name).queries_are_of_inputs for name in self.modalities)

    def requested(self, points: Mapping[str, Tensor | None] | None) -> dict[str, Tensor | None]:
        """Points by modality, in the order of their names. Raises ValueError for modalities that there are not."""
        every: dict[str, Tensor | None] = dict.fromkeys(sorted(self.modalities))
        if points is None:
            return every
        check_modalities(points, every)
        return {name: points[name] for name in every if name in points}

    def every_point(self) -> dict[str, Tensor]:
        return {name: cast(Tensor, self._of(name).every_point()) for name in sorted(self.modalities)}

    def decoder_query(  # type: ignore[override]  # the one decoder whose points come by modality
        self,
        inputs: Tensor,
        modality_sizes: Mapping[str, int] | None = None,
        inputs_without_pos: Mapping[str, Tensor] | None = None,
        subsampled_points: Mapping[str, Tensor | None] | None = None,
    ) -> Tensor:
        """Queries (B, M, C) of the modalities that `subsampled_points` names, in the order of their names.

        None in place of a modality's points stands for all of them, and in place of the mapping for every modality.
        """
        points = self.requested(subsampled_points)
        tokens = {} if modality_sizes is None else restructure(modality_sizes, inputs)
        contents = inputs_without_pos or {}
        queries: list[Tensor] = []
        for name in sorted(points):
            query = self._of(name).decoder_query(
                tokens.get(name, inputs), None, contents.get(name), points[name]
            )
            padding = self.padding[name].to(query.dtype).expand(*query.shape[:2], -1)
            queries.append(torch.cat([query, padding], dim=-1))
        return torch.cat(queries, dim=1)

    def _of(self, modality: str) -> PerceiverAbstractDecoder:
        return cast(PerceiverAbstractDecoder, self.modalities[modality])


class PerceiverMultimodalPostprocessor(nn.Module):
    """Splits the output points among the modalities, in the order of their names, and postprocesses each."""

    def __init__(self, modalities: Mapping[str, nn.Module], input_is_dict: bool = False) -> None:
        super().__init__()
        self.modalities = nn.ModuleDict(modalities)
        self.input_is_dict = input_is_dict

    def forward(
        self,
        inputs: Tensor | Mapping[str, Tensor],
        pos: Tensor | None = None,
        modality_sizes: Mapping[str, int] | None = None,
    ) -> dict[str, Tensor]:
        """(B, M, C), or with `input_is_dict` {modality: (B, M, C)}, -> {modality: output}.

        `modality_sizes` has the number of points of each modality that is to be returned.
        """
        if isinstance(inputs, Tensor):
            if self.input_is_dict or modality_sizes is None:
                raise ValueError(
                    f"inputs must be {'a dict' if self.input_is_dict else 'a tensor with its modality_sizes'}; got a "
                    f"tensor and modality_sizes={modality_sizes}."
                )
            inputs = restructure(modality_sizes, inputs)
        return {name: self.modalities[name](part) for name, part in inputs.items()}


def restructure(modality_sizes: Mapping[str, int], inputs: Tensor) -> dict[str, Tensor]:
    """Cuts (B, N, C) into {modality: (B, size, C)}, in the order of their names."""
    names = sorted(modality_sizes)
    parts: Sequence[Tensor] = torch.split(inputs, [modality_sizes[name] for name in names], dim=1)
    return dict(zip(names, parts, strict=True))
