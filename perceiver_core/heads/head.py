"""What the seven heads share: a PerceiverModel inside, and how its output becomes theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from perceiver_core.model import PerceiverModel
from perceiver_core.output_points import OutputPoints, Points
from perceiver_core.outputs import (
    Logits,
    PerceiverClassifierOutput,
    PerceiverMaskedLMOutput,
    PerceiverModelOutput,
)
from perceiver_core.pretrained import PerceiverPreTrainedModel

Output = TypeVar("Output", PerceiverClassifierOutput, PerceiverMaskedLMOutput)


class PerceiverHead(PerceiverPreTrainedModel):
    """A model made of a PerceiverModel, `perceiver`, and at most a little more."""

    perceiver: PerceiverModel

    def encode(
        self,
        inputs: Tensor | Mapping[str, Tensor],
        attention_mask: Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = False,
        head_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, L, D); see PerceiverModel.encode."""
        return self.perceiver.encode(
            inputs,
            attention_mask,
            interpolate_pos_encoding=interpolate_pos_encoding,
            head_mask=head_mask,
        )

    def decode(
        self,
        latents: Tensor,
        points: OutputPoints | Points | None = None,
        chunk_size: int | None = None,
        *,
        inputs: Tensor | Mapping[str, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        out: Logits | None = None,
    ) -> Any:
        """The logits of the output points; see PerceiverModel.decode."""
        return self.perceiver.decode(
            latents, points, chunk_size, inputs=inputs, attention_mask=attention_mask, out=out
        )


def one_of(**named: Tensor | None) -> Tensor:
    """The one input that was given, under either of its names."""
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            f"Give exactly one of {' and '.join(named)}; got {' and '.join(given) or 'neither'}."
        )
    return next(iter(given.values()))


def head_output(
    output_class: type[Output],
    output: PerceiverModelOutput | tuple[Any, ...],
    logits: Logits,
    loss: Tensor | None,
) -> Output | tuple[Any, ...]:
    """PerceiverModel's output as a head's: the loss first, the logits as the head has them, no last_hidden_state."""
    if isinstance(output, PerceiverModelOutput):
        return output_class(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            cross_attentions=output.cross_attentions,
        )
    first: list[Any] = [logits] if loss is None else [loss, logits]
    return (*first, *output[2:])
