"""What every folded model is: constants made of a model's weights, and the checks that they still are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.folding.parts import FoldError
from perceiver_core.folding.stack import FoldedStack
from perceiver_core.heads.head import PerceiverHead
from perceiver_core.heads.text import PerceiverForMaskedLM
from perceiver_core.outputs import PerceiverClassifierOutput, PerceiverMaskedLMOutput

Inputs = Tensor | Mapping[str, Tensor]
Kept = TypeVar("Kept")

GRIDS = 2  # sizes of inputs whose constants are kept


class Folded:
    """The inference module that fold(model) returns: encode and decode as the model has them, without gradients.

    It reads the model where there is nothing to fold, and refuses to run once the model's weights have changed.
    """

    def __init__(self, model: PerceiverHead, dtype: torch.dtype) -> None:
        if model.training:
            raise FoldError(
                "The model must be in eval mode; got training mode, with dropout. Call model.eval()."
            )
        self.model = model
        self.config: PerceiverConfig = model.config
        self.dtype, self.device = dtype, model.device
        self.attention_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.stack = FoldedStack(model.perceiver.encoder, self.encoder_dtype)
        self._weights = _state(model)
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    @property
    def encoder_dtype(self) -> torch.dtype:
        """The dtype of the encoder's matrix products."""
        return self.dtype

    def encode(self, inputs: Any, attention_mask: Tensor | None = None) -> Tensor:
        """Latents (B, L, D), float32 at least; see PerceiverModel.encode."""
        raise NotImplementedError

    def decode(
        self,
        latents: Tensor,
        points: Any = None,
        chunk_size: int | None = None,
        *,
        inputs: Inputs | None = None,
        attention_mask: Tensor | None = None,
        out: Any = None,
    ) -> Any:
        """The logits of the output points; see PerceiverModel.decode.

        Where decoders are folded, `chunk_size` is but a limit: blocks that fit the caches are smaller, and a clip's
        numbers do not depend on the clips beside it.
        """
        self.check()
        with torch.no_grad():
            logits = self.model.decode(
                latents.to(self.model.dtype),
                points,
                chunk_size,
                inputs=inputs,
                attention_mask=attention_mask,
                out=out,
            )
        return logits if out is not None else logits.to(self.dtype)

    def __call__(
        self,
        inputs: Any,
        attention_mask: Tensor | None = None,
        subsampled_output_points: Any = None,
    ) -> PerceiverClassifierOutput | PerceiverMaskedLMOutput:
        """encode and decode at once, as the model's forward does, for its logits alone."""
        latents = self.encode(inputs, attention_mask)
        logits = self.decode(latents, subsampled_output_points, inputs=inputs, attention_mask=attention_mask)
        is_language = isinstance(self.model, PerceiverForMaskedLM)
        return (PerceiverMaskedLMOutput if is_language else PerceiverClassifierOutput)(logits=logits)

    def check(self) -> None:
        """Raises FoldError if the model is not any more what was folded."""
        if _state(self.model) != self._weights:
            raise FoldError(
                "The model's weights must be those that were folded; they have changed since, or moved. "
                "Call fold(model) again."
            )

    def constants_bytes(self) -> int:
        """Memory of what was computed in advance, weights that are kept in another form included."""
        return sum(t.numel() * t.element_size() for t in _tensors(self.__dict__, {id(self.model)}))

    def kept(self, key: Any, make: Callable[[], Kept]) -> Kept:
        """Constants of inputs of one size; those of the last few sizes are kept."""
        if key not in self._kept:
            self._kept[key] = make()
            while len(self._kept) > GRIDS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def one_head(heads: int, where: str) -> None:
    """Refuses a cross-attention of several heads: there, keys and values are narrower than what they are made of."""
    if heads != 1:
        raise FoldError(f"{where} must have 1 head to be folded; got {heads}. Use the plain model.")


def _state(model: nn.Module) -> list[tuple[int, int]]:
    """Where each weight lies, and how often it was written to."""
    tensors = [*model.parameters(), *model.buffers()]
    return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]


def _tensors(thing: Any, seen: set[int]) -> list[Tensor]:
    """All tensors inside, each once, nothing of the model."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, Mapping):
        return [t for value in thing.values() for t in _tensors(value, seen)]
    if isinstance(thing, list | tuple):
        return [t for value in thing for t in _tensors(value, seen)]
    module = type(thing).__module__
    return _tensors(vars(thing), seen) if module.startswith("perceiver_core.folding") else []
