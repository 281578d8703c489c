"""PerceiverModel: encode once, decode any output points, or both in one forward.

Shapes: B batch, N input tokens, L latents, D latent channels, M output points, C query channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import PerceiverMultimodalDecoder
from perceiver_core.encoder import EncoderOutput, PerceiverEmbeddings, PerceiverEncoder
from perceiver_core.output_points import OutputPoints
from perceiver_core.outputs import PerceiverModelOutput
from perceiver_core.postprocessors import PerceiverMultimodalPostprocessor
from perceiver_core.preprocessors import Preprocessor

Inputs = Tensor | Mapping[str, Tensor]
Logits = dict[str, Tensor]
AttentionMaps = tuple[Tensor, ...]


class PerceiverModel(nn.Module):
    """A Perceiver IO made of the given parts.

    Without a preprocessor its inputs are tokens (B, N, d_model). Without a decoder and its postprocessor it has latents
    and nothing else.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        decoder: PerceiverMultimodalDecoder | None = None,
        input_preprocessor: Preprocessor | None = None,
        output_postprocessor: PerceiverMultimodalPostprocessor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.input_preprocessor = input_preprocessor
        self.output_postprocessor = output_postprocessor
        self.embeddings = PerceiverEmbeddings(config)
        kv_dim = config.d_model if input_preprocessor is None else input_preprocessor.num_channels
        self.encoder = PerceiverEncoder(config, kv_dim)
        self.decoder = decoder
        self._initialise()

    def encode(self, inputs: Inputs, attention_mask: Tensor | None = None) -> Tensor:
        """Latents (B, L, D) of the inputs.

        `attention_mask` (B, N) is 0 where a token is left out. Raises ValueError for inputs that the model cannot take.
        """
        return self._encode(inputs, attention_mask).last_hidden_state

    def decode(self, latents: Tensor, points: OutputPoints, chunk_size: int | None = None) -> Logits:
        """Latents (B, L, D) -> {"audio": (B, samples), "image": (B, points, 3), "label": (B, labels)} at the points.

        With `chunk_size`, that many queries are computed at a time, and always exactly that many: the last chunk
        repeats a point, since float32 results differ in the last bits with the height of a matrix product, and a
        resumed run must equal an undisturbed one. Raises ValueError for points that the config's output does not have.
        """
        return self._decode(latents, points, chunk_size)[0]

    def forward(
        self,
        inputs: Inputs,
        attention_mask: Tensor | None = None,
        subsampled_output_points: Mapping[str, Tensor | None] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> PerceiverModelOutput | tuple[Any, ...]:
        """encode, then decode of the points in one chunk, by default of all of them.

        Options that are None are the config's. With return_dict=False the decoder's attention map comes last and bare,
        after a tuple with the encoder's, as upstream.
        """
        config = self.config
        maps = config.output_attentions if output_attentions is None else output_attentions
        states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        encoded = self._encode(inputs, attention_mask, maps, states)
        logits: Logits | None = None
        decoder_maps: AttentionMaps = ()
        if self.decoder is not None:
            points = OutputPoints.requested(config, subsampled_output_points)
            logits, decoder_maps = self._decode(encoded.last_hidden_state, points, None, maps)
        if not (config.return_dict if return_dict is None else return_dict):
            return PerceiverModelOutput(logits, *encoded).to_tuple() + decoder_maps
        if encoded.cross_attentions is not None:
            encoded = encoded._replace(cross_attentions=encoded.cross_attentions + decoder_maps)
        return PerceiverModelOutput(logits, *encoded)

    def _encode(
        self,
        inputs: Inputs,
        attention_mask: Tensor | None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        if self.input_preprocessor is not None:
            tokens = self.input_preprocessor(inputs)  # (B, N, kv_dim)
        elif isinstance(inputs, Tensor) and inputs.ndim == 3 and inputs.shape[-1] == self.config.d_model:
            tokens = inputs
        else:
            got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(
                f"inputs must have shape (batch, tokens, {self.config.d_model}); got {got}. "
                "Without a preprocessor they are tokens of d_model channels."
            )
        mask = None
        if attention_mask is not None:
            if attention_mask.shape != tokens.shape[:2]:
                raise ValueError(
                    f"attention_mask must have shape {tuple(tokens.shape[:2])}; got {tuple(attention_mask.shape)}. "
                    "Give one number for each token of the encoder's input."
                )
            # The lowest finite number, not -inf: a row with nothing to attend to stays uniform instead of NaN.
            dropped = attention_mask == 0  # (B, N)
            mask = dropped.to(tokens.dtype) * torch.finfo(tokens.dtype).min
            mask = mask[:, None, None, :]  # (B, 1, 1, N)
        return self.encoder(self.embeddings(), tokens, mask, output_attentions, output_hidden_states)

    def _decode(
        self, latents: Tensor, points: OutputPoints, chunk_size: int | None, output_attentions: bool = False
    ) -> tuple[Logits, AttentionMaps]:
        if self.decoder is None or self.output_postprocessor is None:
            raise ValueError(
                "decode() needs a decoder and an output_postprocessor; this model was built without them."
            )
        if latents.ndim != 3 or latents.shape[-1] != self.config.d_latents:
            raise ValueError(
                f"latents must have shape (batch, latents, {self.config.d_latents}); got {tuple(latents.shape)}. "
                "Give what encode() returned."
            )
        if not torch.compiler.is_compiling():  # it looks at values
            points.check_range(self.config)
        keys_values = self.decoder.keys_values(latents)
        outputs: dict[str, list[Tensor]] = {name: [] for name in points.sizes}
        maps: AttentionMaps = ()
        for chunk in [points] if chunk_size is None else points.chunks(chunk_size):
            query = self.decoder.queries(chunk.indices)  # (M, C)
            size = query.shape[0]
            if chunk_size is not None:
                query = torch.cat([query, query[-1:].expand(chunk_size - size, -1)])  # (chunk_size, C)
            decoded = self.decoder.attend(query[None], keys_values, output_attentions)
            maps += decoded.cross_attentions or ()
            for name, output in self.output_postprocessor(decoded.logits[:, :size], chunk.sizes).items():
                outputs[name].append(output)
        return {name: torch.cat(pieces, dim=1) for name, pieces in outputs.items()}, maps

    def _initialise(self) -> None:
        """Upstream's initial values: N(0, initializer_range) for all but biases (0) and LayerNorms (identity)."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                continue
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias":
                    nn.init.zeros_(parameter)
                else:
                    nn.init.normal_(parameter, std=self.config.initializer_range)
