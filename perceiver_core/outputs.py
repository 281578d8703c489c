"""What the models return: Hugging Face's output dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

Logits = Tensor | dict[str, Tensor]


class ModelOutput(Mapping[str, Any]):
    """A dataclass that is also a mapping, and can be read by position; fields that are None are in neither."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self) if getattr(self, f.name) is not None)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return any(key == name for name in self)


@dataclass(eq=False)
class PerceiverModelOutput(ModelOutput):
    """Output of PerceiverModel.

    `hidden_states` holds (self-attention layers + 1) entries for each block, so the states between two blocks are there
    twice; the first one comes after the encoder's cross-attention. `cross_attentions` is (encoder's, decoder's).
    """

    logits: Any = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class PerceiverDecoderOutput(ModelOutput):
    """Output of a decoder."""

    logits: Any = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class PerceiverMaskedLMOutput(ModelOutput):
    """Output of the masked language model."""

    loss: Tensor | None = None
    logits: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class PerceiverClassifierOutput(ModelOutput):
    """Output of the classification, optical flow and multimodal heads."""

    loss: Tensor | None = None
    logits: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


for _output in (
    PerceiverModelOutput,
    PerceiverDecoderOutput,
    PerceiverMaskedLMOutput,
    PerceiverClassifierOutput,
):
    torch.export.register_dataclass(_output)  # torch.export must know the classes that a model returns
