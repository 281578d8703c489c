"""Optical flow on frames of any size: tiles of the size that the model was trained on, blended.

The recipe is DeepMind's (deepmind-research, perceiver/colabs/optical_flow.ipynb): overlapping tiles, weighted by the
distance to their border, times 20. Tiles that would repeat are left out, and frames smaller than a tile are padded.
Shapes: B frame pairs, 2 frames of a pair, C channels, H height, W width, h x w a tile, N tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.tiles import MIN_OVERLAP, tile_corners, tile_weights

if TYPE_CHECKING:
    from perceiver_core.folding import Folded

#: The published model was trained on flow divided by this, beside the 100 that its decoder divides by itself.
FLOW_SCALE_FACTOR = 20


@torch.no_grad()
def estimate_flow(
    model: nn.Module | Folded,
    frames: Tensor,
    *,
    batch_size: int = 1,
    min_overlap: int = MIN_OVERLAP,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """How far, in pixels, each pixel of the first frame has moved in the second.

    `model` is a PerceiverForOpticalFlow in eval mode, or fold() of one; `frames` (B, 2, 3, H, W) are RGB, uint8 or
    floats in [0, 1], on any device. Returns (B, H, W, 2), float32 on the model's device: dx to the right, dy downwards.
    `batch_size` tiles go through the model at once, of one pair or of several; beside them, the result is all that is
    kept. Tiles overlap by `min_overlap` pixels or more; frames smaller than a tile are put in the middle of one, their
    border repeated around them. `progress` is called with the tiles done and the tiles in all.
    Raises ValueError for anything else.
    """
    _check_frames(frames)
    tile_size = _tile_size(model)
    height, width = frames.shape[-2:]
    frames = _pad_to_tile(frames, tile_size)  # (B, 2, 3, max(H, h), max(W, w))
    device, _ = _placement(model)
    flow = torch.zeros(len(frames), *frames.shape[-2:], 2, device=device)
    _add_tiles(model, list(frames), list(flow), batch_size, min_overlap, progress)
    return _unpadded(flow, height, width).contiguous()  # (B, H, W, 2)


@torch.no_grad()
def estimate_flows(
    model: nn.Module | Folded,
    pairs: Sequence[Tensor],
    *,
    batch_size: int = 1,
    min_overlap: int = MIN_OVERLAP,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """estimate_flow of frame pairs (2, 3, H, W), each of another size: tiles of all of them share the model's calls.

    Returns flow (H, W, 2) of each.
    """
    tile_size = _tile_size(model)
    device, _ = _placement(model)
    padded = []
    for pair in pairs:
        _check_frames(pair[None])
        padded.append(_pad_to_tile(pair, tile_size))
    flows = [torch.zeros(*pair.shape[-2:], 2, device=device) for pair in padded]
    _add_tiles(model, padded, flows, batch_size, min_overlap, progress)
    return [_unpadded(flow, *pair.shape[-2:]) for flow, pair in zip(flows, pairs, strict=True)]


def _add_tiles(
    model: nn.Module | Folded,
    pairs: Sequence[Tensor],
    flows: Sequence[Tensor],
    batch_size: int,
    min_overlap: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Add the flow of pairs (2, 3, H, W), each a tile or larger, to zeros (H, W, 2)."""
    if isinstance(model, nn.Module) and model.training:
        raise ValueError(
            "The model must be in eval mode; got training mode, with dropout. Call model.eval()."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more tiles; got {batch_size}.")
    tile_size = _tile_size(model)
    device, dtype = _placement(model)
    weights = torch.from_numpy(tile_weights(tile_size)).to(device)  # (h, w)
    sizes = [(flow.shape[0], flow.shape[1]) for flow in flows]
    windows: dict[tuple[int, int], list[tuple[slice, slice]]] = {}
    totals: dict[tuple[int, int], Tensor] = {}  # by size
    for size in dict.fromkeys(sizes):
        corners = tile_corners(*size, tile_size, min_overlap)
        windows[size] = [(slice(y, y + tile_size[0]), slice(x, x + tile_size[1])) for y, x in corners]
        totals[size] = torch.zeros(size, device=device)
        for window in windows[size]:
            totals[size][window] += weights
    jobs = [(pair, *window) for pair, size in enumerate(sizes) for window in windows[size]]
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        # On the device, and there only as many as fit: patches are 54 numbers a pixel, frames 6 bytes.
        tiles = torch.stack([pairs[pair][:, :, rows, columns] for pair, rows, columns in batch])
        logits = model(inputs=_patches(tiles.to(device)).to(dtype)).logits  # (N, h, w, 2)
        if logits.shape != (len(batch), *tile_size, 2):
            raise ValueError(
                f"The model's logits must have shape {(len(batch), *tile_size, 2)}; got {tuple(logits.shape)}. "
                "Use a PerceiverForOpticalFlow."
            )
        for (pair, rows, columns), tile_flow in zip(batch, logits, strict=True):
            # Float32 whatever the model's dtype, and divided before it is summed: where there is one tile, its flow is
            # the result to the last bit.
            share = (weights / totals[sizes[pair]][rows, columns])[..., None]  # (h, w, 1)
            flows[pair][rows, columns] += FLOW_SCALE_FACTOR * share * tile_flow
        if progress:
            progress(start + len(batch), len(jobs))


def _tile_size(model: nn.Module | Folded) -> tuple[int, int]:
    return cast(tuple[int, int], tuple(cast(Any, model.config).train_size))


def _unpadded(flow: Tensor, height: int, width: int) -> Tensor:
    """(..., max(H, h), max(W, w), 2) -> (..., H, W, 2): what is in the middle."""
    top, left = (flow.shape[-3] - height) // 2, (flow.shape[-2] - width) // 2
    return flow[..., top : top + height, left : left + width, :]


def frame_patches(frames: Tensor) -> Tensor:
    """Frames as the optical flow model takes them: each pixel with its eight neighbours, in [-1, 1].

    (B, 2, 3, H, W), uint8 or floats in [0, 1], -> (B, 2, 27, H, W), float32 or the floats' dtype, with the patch's row,
    column and colour, in that order, in its 27 channels. Beyond the border is 0, mid-grey. Tiles are cut before.
    Raises ValueError for frames of other shapes, dtypes or ranges.
    """
    _check_frames(frames)
    return _patches(frames)


def _patches(frames: Tensor) -> Tensor:
    values = frames.float() / 255 if frames.dtype == torch.uint8 else frames
    height, width = frames.shape[-2:]
    padded = nn.functional.pad(2 * values - 1, (1, 1, 1, 1))  # (B, 2, 3, H + 2, W + 2)
    shifted = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.cat(shifted, dim=-3)  # (B, 2, 27, H, W)


def _check_frames(frames: Tensor) -> None:
    shape = tuple(frames.shape)
    if len(shape) != 5 or shape[1:3] != (2, 3) or 0 in shape:
        raise ValueError(
            f"frames must have shape (pairs, 2, 3, height, width); got {shape}. "
            "Stack the two RGB frames; put channels before height and width."
        )
    if frames.dtype == torch.uint8:
        return
    if not frames.is_floating_point():
        raise ValueError(
            f"frames must be uint8 or floating point; got {frames.dtype}. Convert them to uint8."
        )
    low, high = frames.min().item(), frames.max().item()
    if not (low >= 0 and high <= 1):  # written so that NaN fails
        raise ValueError(f"Float frames must be in [0, 1]; got {low} to {high}. Divide 0..255 by 255.")


def _pad_to_tile(frames: Tensor, tile_size: tuple[int, int]) -> Tensor:
    """(B, 2, 3, H, W) -> (B, 2, 3, max(H, h), max(W, w)): the border repeated, the frame in the middle."""
    for axis, tile in zip((-2, -1), tile_size, strict=True):
        side = frames.shape[axis]
        if side < tile:
            index = torch.arange(tile, device=frames.device) - (tile - side) // 2
            frames = frames.index_select(axis, index.clamp(0, side - 1))
    return frames


def _placement(model: nn.Module | Folded) -> tuple[torch.device, torch.dtype]:
    if not isinstance(model, nn.Module):
        return model.device, model.dtype
    parameter = next(model.parameters(), None)
    return (torch.device("cpu"), torch.float32) if parameter is None else (parameter.device, parameter.dtype)
