"""What the published preprocessors put into their tokens, as the parts that folding works with."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from perceiver_core.folding.algebra import Affine
from perceiver_core.folding.cross_attention import ConstantPart, FoldError, Part
from perceiver_core.folding.tokens import positions_on
from perceiver_core.image_preprocessor import PerceiverImagePreprocessor
from perceiver_core.modalities import PerceiverMultimodalPreprocessor
from perceiver_core.preprocessors import (
    PerceiverAudioPreprocessor,
    PositionedPreprocessor,
    Preprocessor,
)


def raw_content(preprocessor: Preprocessor, inputs: Tensor) -> Tensor:
    """An input -> what varies of its tokens, on their grid: (B, *grid, R)."""
    if isinstance(preprocessor, PerceiverImagePreprocessor):
        preprocessor.check(inputs)
        if preprocessor.prep_type == "conv1x1":  # a projection of every s-th pixel: it is folded too
            s = preprocessor.spatial_downsample
            return inputs[..., ::s, ::s].movedim(-3, -1)
        return preprocessor.content(inputs)
    return preprocessor(inputs).inputs_without_pos  # of sound, patches


def part_of(name: str, preprocessor: Preprocessor, grid: tuple[int, ...], padding: Tensor) -> Part:
    """The part of a preprocessor's tokens on a grid."""
    if not isinstance(preprocessor, PerceiverImagePreprocessor | PerceiverAudioPreprocessor):
        raise FoldError(
            f"{name} must be images or sound; got {type(preprocessor).__name__}. Use the plain model."
        )
    positioned = cast(PositionedPreprocessor, preprocessor)
    if positioned.concat_or_add_pos != "concat":
        raise FoldError(
            f"{name}'s positions must be appended; got positions that are added. Use the plain model."
        )
    embedding = None
    raw_channels = positioned.content_channels
    if isinstance(preprocessor, PerceiverImagePreprocessor) and preprocessor.prep_type == "conv1x1":
        convolution = preprocessor.convnet_1x1
        weight = convolution.weight.detach().double().flatten(1)  # (out_channels, in_channels)
        embedding = Affine(weight, cast(Tensor, convolution.bias).detach().double())
        raw_channels = weight.shape[1]
    positions = positions_on(
        positioned.position_embeddings, positioned.positions_projection, grid, padding.device
    )
    return Part(raw_channels, embedding, positions, padding.detach().double().flatten())


def multimodal_parts(
    preprocessor: PerceiverMultimodalPreprocessor, grids: dict[str, tuple[int, ...]]
) -> list[Part | ConstantPart]:
    """The parts of a multimodal model's tokens, in their order; `grids` of those that have one."""
    parts: list[Part | ConstantPart] = []
    for name in sorted(preprocessor.modalities):
        if preprocessor.is_constant(name):
            parts.append(ConstantPart(preprocessor.mask[name].detach().double().flatten()))
            continue
        if preprocessor.mask_probs.get(name, 0.0) > 0:
            raise FoldError(
                f"{name} is masked with probability {preprocessor.mask_probs[name]}: tokens that are drawn anew "
                "in every call cannot be folded. Use the plain model."
            )
        modality = cast(Preprocessor, preprocessor.modalities[name])
        parts.append(part_of(name, modality, grids[name], preprocessor.padding[name]))
    return parts
