"""The training loss of multimodal autoencoding, which transformers leaves out.

Shapes: B batch, M output points of a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from perceiver_core.output_points import OutputPoints

#: The paper's weights (arXiv 2107.14795): sound counts most, the label hardly.
PUBLISHED_WEIGHTS: Mapping[str, float] = MappingProxyType({"image": 0.03, "audio": 1.0, "label": 0.0001})


def autoencoding_loss(
    logits: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    points: OutputPoints,
    labels: Tensor,
    weights: Mapping[str, float] = PUBLISHED_WEIGHTS,
    distance: Callable[[Tensor, Tensor], Tensor] = nn.functional.l1_loss,
) -> Tensor:
    """The weighted sum of what was decoded: `distance` to the inputs at the points, cross-entropy of the label.

    logits as `decode` gives them; inputs {"image": (B, T, 3, H, W), "audio": (B, S, 1)}; labels (B,) class indices.
    The paper's distance is L1. Raises ValueError where targets and logits differ in shape.
    """
    terms: list[Tensor] = []
    if points.image is not None:
        pixels = inputs["image"].permute(0, 1, 3, 4, 2).flatten(1, 3)  # B, T * H * W, 3
        terms.append(weights["image"] * _compare("image", logits, pixels[:, points.image], distance))
    if points.audio is not None:
        samples = logits["audio"].shape[1] // points.audio.shape[0]  # of a patch
        patches = inputs["audio"].flatten(1).unflatten(1, (-1, samples))  # B, patches, samples
        target = patches[:, points.audio].flatten(1)  # B, M * samples
        terms.append(weights["audio"] * _compare("audio", logits, target, distance))
    if points.label:
        terms.append(weights["label"] * nn.functional.cross_entropy(logits["label"], labels))
    return torch.stack(terms).sum()


def _compare(
    name: str, logits: Mapping[str, Tensor], target: Tensor, distance: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    if logits[name].shape != target.shape:
        raise ValueError(
            f"The {name} input gives targets of shape {tuple(target.shape)}, but {tuple(logits[name].shape)} were "
            f"decoded: train with inputs of the size that the config's output_shape and samples name."
        )
    return distance(logits[name], target.to(logits[name].dtype))
