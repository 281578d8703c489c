"""Training losses; those of optical flow and multimodal autoencoding are left out by transformers.

Shapes: B batch, M output points (of a modality), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from perceiver_core.output_points import OutputPoints

#: The paper's weights (arXiv 2107.14795): sound counts most, the label hardly.
PUBLISHED_WEIGHTS: Mapping[str, float] = MappingProxyType({"image": 0.03, "audio": 1.0, "label": 0.0001})


def masked_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, M, vocabulary) and ids (B, M); labels of -100 do not count."""
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"labels must have shape {tuple(logits.shape[:2])}, one id for each row that is decoded; got "
            f"{tuple(labels.shape)}. Pad them with -100 (padding='max_length'), or decode only as many rows: "
            "subsampled_output_points=torch.arange(length)."
        )
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """The loss of logits (B, labels) that `problem_type` names, or else that the labels' number and dtype imply.

    regression: mean squared error, implied by one label. single_label_classification: cross-entropy with (B,) class
    indices, implied by integers. multi_label_classification: binary cross-entropy with (B, labels) of 0 and 1.
    """
    count = logits.shape[1]
    if problem_type is None:
        integer = labels.dtype in (torch.long, torch.int)
        single = "single_label_classification" if integer else "multi_label_classification"
        problem_type = "regression" if count == 1 else single
    if problem_type == "single_label_classification":
        if labels.numel() != logits.shape[0]:
            raise _wrong_labels(problem_type, (logits.shape[0],), labels)
        return nn.functional.cross_entropy(logits, labels.flatten().long())
    flat = count == 1 and labels.numel() == logits.shape[0]
    if not flat and labels.shape != logits.shape:
        raise _wrong_labels(problem_type, tuple(logits.shape), labels)
    labels = labels.reshape(logits.shape).to(logits.dtype)
    if problem_type == "regression":
        return nn.functional.mse_loss(logits, labels)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels)


def _wrong_labels(problem_type: str, expected: tuple[int, ...], labels: Tensor) -> ValueError:
    return ValueError(
        f"For {problem_type}, labels must have shape {expected}; got {tuple(labels.shape)} of {labels.dtype}. "
        "Set the config's problem_type if another loss is meant."
    )


def end_point_error(flow: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """The mean Euclidean distance of two flows (..., H, W, 2), over the pixels where `valid` (..., H, W) is not 0."""
    if flow.shape != target.shape or flow.shape[-1] != 2:
        raise ValueError(
            f"Flow and target must have one shape (..., height, width, 2); got {tuple(flow.shape)} and "
            f"{tuple(target.shape)}. Put the two channels (x, y) last."
        )
    distance = torch.linalg.vector_norm(flow - target.to(flow.dtype), dim=-1)  # (..., H, W)
    if valid is None:
        return distance.mean()
    kept = valid != 0
    # where, not a product: what is not valid may be NaN
    return torch.where(kept, distance, 0).sum() / kept.sum()


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
