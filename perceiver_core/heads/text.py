"""Text: filling in masked bytes, and classification. Shapes: B batch, N input bytes, M output points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import PerceiverBasicDecoder, PerceiverClassificationDecoder
from perceiver_core.heads.head import PerceiverHead, head_output, one_of
from perceiver_core.losses import classification_loss, masked_lm_loss
from perceiver_core.model import PerceiverModel
from perceiver_core.output_points import Points
from perceiver_core.outputs import PerceiverClassifierOutput, PerceiverMaskedLMOutput
from perceiver_core.preprocessors import PerceiverTextPreprocessor
from perceiver_core.pretrained import initialise
from perceiver_core.streaming import write


class PerceiverEmbeddingDecoder(nn.Module):
    """Logits of the vocabulary: the product with the input's embeddings, and a bias."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: Tensor, embedding_layer: nn.Embedding) -> Tensor:
        """(B, M, d_model) -> (B, M, vocab_size)."""
        return nn.functional.linear(hidden_states, embedding_layer.weight, self.bias)


class _TextHead(PerceiverHead):
    """A head whose inputs are token ids."""

    @property
    def text(self) -> PerceiverTextPreprocessor:
        """The preprocessor, with the embeddings."""
        return cast(PerceiverTextPreprocessor, self.perceiver.input_preprocessor)

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings of the vocabulary (upstream's returns the latents)."""
        return self.text.embeddings

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Gives the vocabulary another size: ids keep their rows, new ones get fresh rows (upstream's raises)."""
        old = self.text.embeddings
        new = nn.Embedding(
            new_num_tokens, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype
        )
        self.config = self.perceiver.config = replace(self.config, vocab_size=new_num_tokens)
        initialise(new, self.config)
        _copy_rows(old.weight, new.weight)
        self.text.embeddings = new
        return new


class PerceiverForMaskedLM(_TextHead):
    """Fills in masked bytes, as deepmind/language-perceiver."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(config)
        rows = {"num_channels": config.d_model, "index_dims": config.max_position_embeddings}
        self.perceiver = PerceiverModel(
            config,
            input_preprocessor=PerceiverTextPreprocessor(config),
            decoder=PerceiverBasicDecoder(
                config,
                output_num_channels=config.d_latents,
                output_index_dims=config.max_position_embeddings,
                num_channels=config.d_model,
                qk_channels=8 * 32,
                v_channels=config.d_model,
                num_heads=8,
                use_query_residual=False,
                final_project=False,
                trainable_position_encoding_kwargs=rows,
            ),
        )
        self.embedding_decoder = PerceiverEmbeddingDecoder(config)

    def decode(
        self,
        latents: Tensor,
        points: Any = None,
        chunk_size: int | None = None,
        *,
        out: Any = None,
        **more: Any,
    ) -> Tensor:
        """Latents (B, L, D) -> logits of the bytes at the points, (B, M, vocab_size); see PerceiverModel.decode."""
        logits = self._logits(super().decode(latents, points, chunk_size, **more))
        return logits if out is None else write(out, logits)

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        input_ids: Tensor | None = None,
        *,
        subsampled_output_points: Points | None = None,
        head_mask: Tensor | None = None,
    ) -> PerceiverMaskedLMOutput | tuple[Any, ...]:
        """Ids (B, N) -> logits (B, max_position_embeddings, vocab_size), however short the input, as upstream.

        With `subsampled_output_points`, positions (M,) for all samples or (B, M), only those rows are decoded: (B, M,
        vocab_size). `labels` have one id for each row that is decoded, -100 where none counts. For the rest see
        PerceiverModel.forward.
        """
        output = self.perceiver(
            one_of(inputs=inputs, input_ids=input_ids),
            attention_mask=attention_mask,
            subsampled_output_points=subsampled_output_points,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            head_mask=head_mask,
        )
        logits = self._logits(output[0])
        loss = None if labels is None else masked_lm_loss(logits, labels)
        return head_output(PerceiverMaskedLMOutput, output, logits, loss)

    def _logits(self, rows: Tensor) -> Tensor:
        return self.embedding_decoder(rows, self.text.embeddings)

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        new = super().resize_token_embeddings(new_num_tokens)
        old = self.embedding_decoder.bias
        self.embedding_decoder.bias = nn.Parameter(old.new_zeros(new_num_tokens))
        _copy_rows(old, self.embedding_decoder.bias)
        return new


class PerceiverForSequenceClassification(_TextHead):
    """Classifies texts."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(config)
        label = {"num_channels": config.d_latents, "index_dims": 1}
        self.perceiver = PerceiverModel(
            config,
            input_preprocessor=PerceiverTextPreprocessor(config),
            decoder=PerceiverClassificationDecoder(
                config,
                num_channels=config.d_latents,
                trainable_position_encoding_kwargs=label,
                use_query_residual=True,
            ),
        )

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        input_ids: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
    ) -> PerceiverClassifierOutput | tuple[Any, ...]:
        """Ids (B, N) -> logits (B, num_labels); for `labels` see losses.classification_loss, else PerceiverModel."""
        output = self.perceiver(
            one_of(inputs=inputs, input_ids=input_ids),
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            head_mask=head_mask,
        )
        logits = output[0]
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return head_output(PerceiverClassifierOutput, output, logits, loss)


@torch.no_grad()
def _copy_rows(old: Tensor, new: Tensor) -> None:
    rows = min(len(old), len(new))
    new[:rows] = old[:rows]
