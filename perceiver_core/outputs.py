"""What the models return: Hugging Face's output dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """A dataclass that can also be read by key and by position; fields that are None have no position."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        values = (getattr(self, f.name) for f in fields(self))
        return tuple(value for value in values if value is not None)

    def __getitem__(self, key: str | int) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@dataclass
class PerceiverModelOutput(ModelOutput):
    """Output of PerceiverModel.

    `hidden_states` holds (self-attention layers + 1) entries for each block, so the states between two blocks are there
    twice; the first one comes after the encoder's cross-attention. `cross_attentions` is (encoder's, decoder's).
    """

    logits: dict[str, Tensor] | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class PerceiverDecoderOutput(ModelOutput):
    """Output of a decoder."""

    logits: Tensor
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class PerceiverClassifierOutput(ModelOutput):
    """Output of the classification, optical flow and multimodal heads."""

    loss: Tensor | None = None
    logits: dict[str, Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
