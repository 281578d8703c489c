"""PerceiverModel: encode once, decode any output points, or both in one forward.

Shapes: B batch, N input tokens, L latents, D latent channels, M output points, C query channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import PerceiverAbstractDecoder
from perceiver_core.encoder import EncoderOutput, PerceiverEmbeddings, PerceiverEncoder
from perceiver_core.modalities import PerceiverMultimodalPostprocessor
from perceiver_core.output_points import OutputPoints, Points, check_modalities, chunks
from perceiver_core.outputs import Logits, PerceiverModelOutput
from perceiver_core.preprocessors import Preprocessed, Preprocessor
from perceiver_core.pretrained import PerceiverPreTrainedModel, initialise
from perceiver_core.streaming import ONLY, AttentionMaps, Piece, join, target, write

Inputs = Tensor | Mapping[str, Tensor]


class PerceiverModel(PerceiverPreTrainedModel):
    """A Perceiver IO made of the given parts.

    Without a preprocessor its inputs are tokens (B, N, d_model). Without a decoder it has latents and nothing else.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        decoder: PerceiverAbstractDecoder | None = None,
        input_preprocessor: Preprocessor | None = None,
        output_postprocessor: nn.Module | None = None,
    ) -> None:
        super().__init__(config)
        self.input_preprocessor = input_preprocessor
        self.output_postprocessor = output_postprocessor
        self.embeddings = PerceiverEmbeddings(config)
        kv_dim = config.d_model if input_preprocessor is None else input_preprocessor.num_channels
        self.encoder = PerceiverEncoder(config, kv_dim)
        self.decoder = decoder
        initialise(self, config)

    def encode(
        self,
        inputs: Inputs,
        attention_mask: Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = False,
        head_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, L, D) of the inputs; for the arguments see forward."""
        tokens = self._preprocess(inputs, interpolate_pos_encoding).inputs
        return self._encode(tokens, attention_mask, head_mask).last_hidden_state

    def decode(
        self,
        latents: Tensor,
        points: OutputPoints | Points | None = None,
        chunk_size: int | None = None,
        *,
        inputs: Inputs | None = None,
        attention_mask: Tensor | None = None,
        out: Logits | None = None,
    ) -> Logits:
        """Latents (B, L, D) -> the logits of the output points, by default of all of them.

        Points are flat indices, and then the logits are flat too: (B, M, C). Multimodal models take OutputPoints or
        indices for each modality, and return {modality: logits}. Of all points, logits have forward's shape.

        With `chunk_size`, that many queries are computed at a time, and always exactly that many: the last chunk
        repeats a point, since float32 results differ in the last bits with the height of a matrix product, and a
        resumed run must equal an undisturbed one. Without gradients each chunk is written to its place in the output,
        which is in memory once. `out` is where: a tensor, or {modality: tensor}, of the shape that is returned
        without it, on any device (pinned memory, say) and of any floating-point dtype; it is what is returned.

        `inputs` are what the latents were made of, for models whose queries are made of them too (optical flow).
        `attention_mask` (B, N) counts only with the config's reference "deepmind".
        Raises ValueError for points that the output does not have, and where `out` does not fit.
        """
        if self.decoder is None:
            raise ValueError("decode() needs a decoder; this model was built without one.")
        preprocessed = None
        if self.decoder.queries_are_of_inputs:
            if inputs is None:
                raise ValueError(
                    "This model's queries are made of its inputs: decode() must be given `inputs` too; got None. "
                    "Give what encode() was given."
                )
            preprocessed = self._preprocess(inputs, interpolate=False)
        return self._decode(latents, points, chunk_size, preprocessed, attention_mask, out=out)[0]

    def forward(
        self,
        inputs: Inputs,
        attention_mask: Tensor | None = None,
        subsampled_output_points: Points | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool = False,
        return_dict: bool | None = None,
        *,
        head_mask: Tensor | None = None,
    ) -> PerceiverModelOutput | tuple[Any, ...]:
        """encode, then decode of the points in one chunk, by default of all of them.

        `attention_mask` (B, N) is 0 where a token is left out. `head_mask` scales the encoder's self-attention heads:
        (H,), or (layers, H) with a row for each layer of a block or of all blocks (transformers 4.x takes the latter
        and reads the first block's rows). Options that are None are the config's. With return_dict=False the decoder's
        attention map comes last and bare, after a tuple with the encoder's, as upstream.
        """
        config = self.config
        maps = config.output_attentions if output_attentions is None else output_attentions
        states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        preprocessed = self._preprocess(inputs, interpolate_pos_encoding)
        encoded = self._encode(preprocessed.inputs, attention_mask, head_mask, maps, states)
        logits: Logits | None = None
        decoder_maps: AttentionMaps = ()
        if self.decoder is not None:
            latents = encoded.last_hidden_state
            logits, decoder_maps = self._decode(
                latents, subsampled_output_points, None, preprocessed, attention_mask, maps
            )
        if not (config.return_dict if return_dict is None else return_dict):
            return PerceiverModelOutput(logits, *encoded).to_tuple() + decoder_maps
        if encoded.cross_attentions is not None:
            encoded = encoded._replace(cross_attentions=encoded.cross_attentions + decoder_maps)
        return PerceiverModelOutput(logits, *encoded)

    def _preprocess(self, inputs: Inputs, interpolate: bool) -> Preprocessed:
        if self.input_preprocessor is not None:
            return self.input_preprocessor(inputs, interpolate_pos_encoding=interpolate)
        if isinstance(inputs, Tensor) and inputs.ndim == 3 and inputs.shape[-1] == self.config.d_model:
            return Preprocessed(inputs, None, inputs)
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(
            f"inputs must have shape (batch, tokens, {self.config.d_model}); got {got}. "
            "Without a preprocessor they are tokens of d_model channels."
        )

    def _encode(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
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
        return self.encoder(
            self.embeddings(), tokens, mask, output_attentions, output_hidden_states, head_mask
        )

    def _decode(
        self,
        latents: Tensor,
        points: OutputPoints | Points | None,
        chunk_size: int | None,
        preprocessed: Preprocessed | None,
        attention_mask: Tensor | None,
        output_attentions: bool = False,
        out: Logits | None = None,
    ) -> tuple[Logits, AttentionMaps]:
        if latents.ndim != 3 or latents.shape[-1] != self.config.d_latents:
            raise ValueError(
                f"latents must have shape (batch, latents, {self.config.d_latents}); got {tuple(latents.shape)}. "
                "Give what encode() returned."
            )
        decoder = cast(PerceiverAbstractDecoder, self.decoder)
        keys_values = decoder.keys_values(latents)
        asked = points.indices if isinstance(points, OutputPoints) else points
        post = self.output_postprocessor
        parts = post if isinstance(post, PerceiverMultimodalPostprocessor) else None

        def piece(chunk: Points | None, height: int | None = None) -> Piece:
            query = self._query(chunk, preprocessed, latents)  # (B or 1, M, C)
            size = query.shape[1]
            if height is not None:
                query = torch.cat([query, query[:, -1:].expand(-1, height - size, -1)], dim=1)
            query_mask = self._query_mask(attention_mask, chunk, query.shape[1])
            decoded = decoder.attend(query, keys_values, query_mask, output_attentions)
            maps = decoded.cross_attentions or ()
            rows = decoded.logits[:, :size]  # (B, M, C)
            if parts is None:
                return Piece({ONLY: rows}, {ONLY: size}, maps)
            sizes = _sizes(_every(chunk, decoder))
            return Piece(parts(rows, modality_sizes=sizes), sizes, maps)

        if chunk_size is None and out is None:
            whole = piece(asked)
            outputs, maps = whole.outputs, whole.attention_maps
        else:
            every = _every(asked, decoder)
            sizes = _sizes(every)
            totals = {ONLY: sum(sizes.values())} if parts is None else sizes
            into: dict[str, Tensor] | None = None
            if out is not None and (parts is not None or post is None):
                shaped = decoder.shaped if asked is None else None
                into = target(out, piece(_first(every)), totals, shaped)
            cut = [asked] if chunk_size is None else chunks(every, chunk_size)
            outputs, maps = join((piece(chunk, chunk_size) for chunk in cut), totals, into)
        if parts is not None:
            return outputs if out is None else out, maps
        logits = decoder.shaped(outputs[ONLY]) if asked is None else outputs[ONLY]
        if post is not None:  # of the whole, and so beside it
            logits = post(logits)
            return logits if out is None else write(out, logits), maps
        return logits if out is None else out, maps

    def _query(self, chunk: Points | None, preprocessed: Preprocessed | None, latents: Tensor) -> Tensor:
        decoder = cast(PerceiverAbstractDecoder, self.decoder)
        if not decoder.queries_are_of_inputs:  # the same for every sample: one will do
            return decoder.decoder_query(latents[:1], subsampled_points=cast(Tensor, chunk))
        made_of = cast(Preprocessed, preprocessed)
        return decoder.decoder_query(
            made_of.inputs,
            made_of.modality_sizes,
            cast(Tensor, made_of.inputs_without_pos),
            cast(Tensor, chunk),
        )

    def _query_mask(self, attention_mask: Tensor | None, chunk: Points | None, size: int) -> Tensor | None:
        """The original model's: queries (B, size) of tokens that are not there attend to nothing."""
        if attention_mask is None or self.config.reference != "deepmind" or isinstance(chunk, Mapping):
            return None
        kept = attention_mask != 0  # (B, N)
        if chunk is None:
            return nn.functional.pad(kept, (0, size - kept.shape[1]))
        known = nn.functional.pad(kept, (0, max(0, int(chunk.max()) + 1 - kept.shape[1])))
        rows = known.gather(1, chunk.to(known.device).expand(known.shape[0], chunk.shape[-1]))  # (B, M)
        return nn.functional.pad(rows, (0, size - rows.shape[1]))


def _every(points: Points | None, decoder: PerceiverAbstractDecoder) -> Points:
    """The points, with the indices of all where None stands for them."""
    if isinstance(points, Tensor) or (points and all(indices is not None for indices in points.values())):
        return points
    every = decoder.every_point()
    if points is None or isinstance(every, Tensor):
        return every
    check_modalities(points, every)
    return {name: every[name] if indices is None else indices for name, indices in points.items()}


def _first(points: Points) -> Points:
    """One point, of each modality."""
    if isinstance(points, Tensor):
        return points[..., :1]
    return {name: cast(Tensor, indices)[..., :1] for name, indices in points.items()}


def _sizes(points: Points) -> dict[str, int]:
    """The number of points of each modality, in the order in which they are decoded."""
    if isinstance(points, Tensor):
        return {ONLY: points.shape[-1]}
    return {name: cast(Tensor, points[name]).shape[-1] for name in sorted(points)}
