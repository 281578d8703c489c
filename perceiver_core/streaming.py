"""An output in pieces: each is written to its place in one tensor, allocated once or given by the caller.

Shapes: B batch, M output points, m points of a piece, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_core.outputs import Logits

AttentionMaps = tuple[Tensor, ...]

#: The name of the output of a model that has no modalities.
ONLY = ""


@dataclass(frozen=True, eq=False)
class Piece:
    """What some points gave: each output, (B, m, ...) or (B, m * k), and how many of its points they were."""

    outputs: dict[str, Tensor]
    points: dict[str, int]
    attention_maps: AttentionMaps = ()


def join(
    pieces: Iterable[Piece], points: Mapping[str, int], out: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], AttentionMaps]:
    """Consecutive pieces of outputs with that many points, in one tensor each, and all attention maps.

    With `out`, its tensors are filled and returned; they must fit: see `target`.
    """
    filled = {} if out is None else dict(out)
    recorded: dict[str, list[Tensor]] = {}
    ends = dict.fromkeys(points, 0)
    maps: AttentionMaps = ()
    behind: set[torch.device] = set()  # devices from which copies may still be on their way
    for piece in pieces:
        maps += piece.attention_maps
        for name, part in piece.outputs.items():
            if name in recorded or (name not in filled and part.requires_grad):
                # Gradients go through one cat; through writes they would be copied whole for every piece.
                recorded.setdefault(name, []).append(part)
                continue
            if name not in filled:
                size = part.shape[1] * points[name] // piece.points[name]
                filled[name] = part.new_empty(
                    (part.shape[0], size, *part.shape[2:])
                )  # (B, M, ...), (B, M * k)
            start, ends[name] = ends[name], ends[name] + part.shape[1]
            _write(filled[name][:, start : ends[name]], part)
            if _overtakes(part, filled[name]):
                behind.add(part.device)
    for device in behind:
        torch.cuda.current_stream(device).synchronize()
    filled |= {name: torch.cat(parts, dim=1) for name, parts in recorded.items()}
    return {name: filled[name] for name in points}, maps


def target(
    out: Logits, first: Piece, points: Mapping[str, int], shaped: Callable[[Tensor], Tensor] | None
) -> dict[str, Tensor]:
    """`out` as `join` fills it. Raises ValueError unless it has the outputs of that many points.

    `first` is a piece with one point of each. Where the one output of a model is `shaped`, so is `out`.
    """
    whole = {
        name: (part.shape[0], part.shape[1] * points[name], *part.shape[2:])
        for name, part in first.outputs.items()
    }
    if ONLY in whole:
        if not isinstance(out, Tensor):
            raise ValueError(
                f"out must be a tensor; got {type(out).__name__}. Give one, such as decode() returns."
            )
        rows = whole[ONLY]  # (B, M, C)
        given = rows if shaped is None else tuple(shaped(torch.empty(rows, device="meta")).shape)
        check_out("out", out, given, first.outputs[ONLY])
        return {ONLY: _rows(out, rows)}
    if isinstance(out, Tensor) or out.keys() != whole.keys():
        got = "one tensor" if isinstance(out, Tensor) else sorted(out)
        raise ValueError(
            f"out must have a tensor for each of {sorted(whole)}, which are decoded, and no other; got {got}. "
            "Ask for other points, or give other tensors."
        )
    for name, shape in whole.items():
        check_out(f"out[{name!r}]", out[name], shape, first.outputs[name])
    return dict(out)


def write(out: Logits, logits: Tensor) -> Tensor:
    """Logits that are there as a whole, written into `out`. Raises ValueError unless it has their shape."""
    if not isinstance(out, Tensor):
        raise ValueError(
            f"out must be a tensor; got {type(out).__name__}. Give one, such as decode() returns."
        )
    check_out("out", out, tuple(logits.shape), logits)
    return out.copy_(logits)


def check_out(name: str, out: Tensor, shape: tuple[int, ...], like: Tensor) -> None:
    """Raises ValueError unless `out` can take logits of that shape that are computed as `like` was."""
    if tuple(out.shape) != shape:
        raise ValueError(
            f"{name} must have shape {shape}; got {tuple(out.shape)}. Use torch.empty({shape}), on any device."
        )
    if not out.is_floating_point():
        raise ValueError(
            f"{name} must be floating point, of any precision; got {out.dtype}. Round what was decoded afterwards."
        )
    if like.requires_grad or (out.requires_grad and torch.is_grad_enabled()):
        raise ValueError(
            f"{name} can take no gradients, but they are being recorded. "
            "Decode within torch.no_grad() or inference_mode(), or without out."
        )


def _rows(out: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`out` as rows (B, M, C), in its own memory."""
    try:
        return out.view(shape)
    except RuntimeError:
        raise ValueError(
            f"out must lie in memory as rows of shape {shape} do; got strides {out.stride()} for its shape "
            f"{tuple(out.shape)}. Give a contiguous tensor."
        ) from None


def _write(place: Tensor, part: Tensor) -> None:
    if place.device == part.device:
        place.copy_(part)
        return
    # Sample by sample these are contiguous, and pinned memory takes each in one transfer, behind the computation.
    for row, values in zip(place, part, strict=True):
        row.copy_(values.to(row.dtype), non_blocking=_overtakes(part, place))


def _overtakes(part: Tensor, place: Tensor) -> bool:
    """Whether the next piece is computed while this one is copied from a GPU."""
    return part.is_cuda and place.device != part.device and not torch.compiler.is_compiling()
