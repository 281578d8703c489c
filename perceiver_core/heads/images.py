"""Image classification, in three ways to make tokens of pixels. Shapes: B batch, H height, W width."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import PerceiverClassificationDecoder
from perceiver_core.heads.head import PerceiverHead, head_output, one_of
from perceiver_core.image_preprocessor import PerceiverImagePreprocessor
from perceiver_core.losses import classification_loss
from perceiver_core.model import PerceiverModel
from perceiver_core.outputs import PerceiverClassifierOutput


class _ImageClassifier(PerceiverHead):
    """An image preprocessor and a decoder of one label."""

    def __init__(
        self,
        config: PerceiverConfig,
        preprocessor: PerceiverImagePreprocessor,
        use_query_residual: bool = True,
    ) -> None:
        super().__init__(config)
        self.perceiver = PerceiverModel(
            config,
            input_preprocessor=preprocessor,
            decoder=PerceiverClassificationDecoder(
                config,
                num_channels=config.d_latents,
                trainable_position_encoding_kwargs={"num_channels": config.d_latents, "index_dims": 1},
                use_query_residual=use_query_residual,
            ),
        )

    def _classify(
        self, pixels: Tensor, labels: Tensor | None, **options: Any
    ) -> PerceiverClassifierOutput | tuple[Any, ...]:
        output = self.perceiver(pixels, **options)
        logits = output[0]
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return head_output(PerceiverClassifierOutput, output, logits, loss)


class _AnySizeClassifier(_ImageClassifier):
    """Positions are computed: images of any size will do."""

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        pixel_values: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
    ) -> PerceiverClassifierOutput | tuple[Any, ...]:
        """Pixels (B, 3, H, W) -> logits (B, num_labels).

        For `labels` see losses.classification_loss, for the rest PerceiverModel.forward. PerceiverImageProcessor makes
        the pixels that the published weights were trained on.
        """
        return self._classify(
            one_of(inputs=inputs, pixel_values=pixel_values),
            labels,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            head_mask=head_mask,
        )


class PerceiverForImageClassificationLearned(_ImageClassifier):
    """Every pixel with a trained position, as deepmind/vision-perceiver-learned.

    With an image_size (height, width) in the config the table need not be square. The original model has no residual
    around its decoder's attention, which upstream's has.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        size = config.image_size
        grid = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(
            config,
            PerceiverImagePreprocessor(
                config,
                prep_type="conv1x1",
                spatial_downsample=1,
                out_channels=256,
                position_encoding_type="trainable",
                project_pos_dim=256,
                trainable_position_encoding_kwargs={"num_channels": 256, "index_dims": grid},
            ),
            use_query_residual=config.reference == "hf",
        )

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
        # upstream's order of arguments, which is not that of the other two
        interpolate_pos_encoding: bool = False,
        return_dict: bool | None = None,
        pixel_values: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
    ) -> PerceiverClassifierOutput | tuple[Any, ...]:
        """Pixels (B, 3, H, W) -> logits (B, num_labels); see the other two heads.

        With `interpolate_pos_encoding` H and W may differ from the config's image_size.
        """
        return self._classify(
            one_of(inputs=inputs, pixel_values=pixel_values),
            labels,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=return_dict,
            head_mask=head_mask,
        )


class PerceiverForImageClassificationFourier(_AnySizeClassifier):
    """Every pixel with Fourier features of its position, as deepmind/vision-perceiver-fourier."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(
            config,
            PerceiverImagePreprocessor(
                config,
                prep_type="pixels",
                spatial_downsample=1,
                fourier_position_encoding_kwargs={"num_bands": 64, "max_resolution": (224, 224)},
            ),
        )


class PerceiverForImageClassificationConvProcessing(_AnySizeClassifier):
    """A convolution and a max-pool first, as deepmind/vision-perceiver-conv."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(
            config,
            PerceiverImagePreprocessor(
                config,
                prep_type="conv",
                spatial_downsample=1,
                fourier_position_encoding_kwargs={"num_bands": 64, "max_resolution": (56, 56)},
            ),
        )
