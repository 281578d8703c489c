"""Video, its sound and its label. Shapes: B batch, T frames, H height, W width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import (
    PerceiverBasicDecoder,
    PerceiverBasicVideoAutoencodingDecoder,
    PerceiverClassificationDecoder,
)
from perceiver_core.heads.head import PerceiverHead, head_output
from perceiver_core.image_preprocessor import PerceiverImagePreprocessor
from perceiver_core.losses import autoencoding_loss
from perceiver_core.modalities import (
    PerceiverMultimodalDecoder,
    PerceiverMultimodalPostprocessor,
    PerceiverMultimodalPreprocessor,
)
from perceiver_core.model import PerceiverModel
from perceiver_core.output_points import OutputPoints
from perceiver_core.outputs import PerceiverClassifierOutput
from perceiver_core.postprocessors import (
    PerceiverAudioPostprocessor,
    PerceiverClassificationPostprocessor,
    PerceiverProjectionPostprocessor,
)
from perceiver_core.preprocessors import PerceiverAudioPreprocessor, PerceiverOneHotPreprocessor


class PerceiverForMultimodalAutoencoding(PerceiverHead):
    """Autoencodes video and its sound, and classifies it, as deepmind/multimodal-perceiver.

    Inputs: {"image": (B, T, 3, H, W) in [0, 1], "audio": (B, samples, 1) in [-1, 1]}; a "label" may be there and is
    never looked at, since the model always masks it. Any T, and any H and W that are multiples of 4, can be encoded;
    what is decoded has the config's output_shape.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(config)
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        # The decoder's image queries have the bands of the encoder's resolution too, on their 4 times finer grid.
        image_positions: dict[str, Any] = {
            "position_encoding_type": "fourier",
            "fourier_position_encoding_kwargs": {
                "num_bands": 32,
                "max_resolution": (config.num_frames, height, width),
            },
        }
        audio_positions: dict[str, Any] = {
            "position_encoding_type": "fourier",
            "fourier_position_encoding_kwargs": {
                "num_bands": 192,
                "max_resolution": (config.num_audio_samples,),
            },
        }
        channels = config.output_num_channels
        preprocessor = PerceiverMultimodalPreprocessor(
            modalities={
                "audio": PerceiverAudioPreprocessor(
                    config, samples_per_patch=config.samples_per_patch, **audio_positions
                ),
                "image": PerceiverImagePreprocessor(config, prep_type="patches", **image_positions),
                "label": PerceiverOneHotPreprocessor(config),
            },
            mask_probs={"image": 0.0, "audio": 0.0, "label": 1.0},
            min_padding_size=4,
        )
        decoder = PerceiverMultimodalDecoder(
            config,
            modalities={
                "audio": PerceiverBasicDecoder(
                    config,
                    output_num_channels=channels,
                    output_index_dims=(config.num_audio_patches,),
                    position_encoding_only=True,
                    **audio_positions,
                ),
                "image": PerceiverBasicVideoAutoencodingDecoder(
                    config,
                    output_shape=config.output_shape,
                    output_num_channels=channels,
                    position_encoding_only=True,
                    **image_positions,
                ),
                "label": PerceiverClassificationDecoder(
                    config,
                    position_encoding_only=True,
                    position_encoding_type="trainable",
                    trainable_position_encoding_kwargs={
                        "num_channels": config._label_trainable_num_channels,
                        "index_dims": 1,
                    },
                ),
            },
            num_outputs=None,
            output_num_channels=channels,
        )
        postprocessor = PerceiverMultimodalPostprocessor(
            {
                "audio": PerceiverAudioPostprocessor(config, in_channels=channels),
                "image": PerceiverProjectionPostprocessor(in_channels=channels, out_channels=3),
                "label": PerceiverClassificationPostprocessor(config, in_channels=channels),
            }
        )
        self.perceiver = PerceiverModel(config, decoder, preprocessor, postprocessor)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        attention_mask: Tensor | None = None,
        subsampled_output_points: Mapping[str, Tensor | None] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        *,
        head_mask: Tensor | None = None,
    ) -> PerceiverClassifierOutput | tuple[Any, ...]:
        """encode and decode at once; see PerceiverModel.forward. `logits` is the dict that decode returns.

        Of `subsampled_output_points` {"image": indices, "audio": indices, "label": None}, image and audio may be left
        out; the label is always decoded. Without it everything is (upstream fails there).
        With `labels` (B,), class indices, `loss` is the autoencoding loss as published, on the points that were
        decoded (upstream raises NotImplementedError here); for other weights call losses.autoencoding_loss.
        """
        points = OutputPoints.requested(self.config, subsampled_output_points)
        output = self.perceiver(
            inputs,
            attention_mask=attention_mask,
            subsampled_output_points=points.indices,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            head_mask=head_mask,
        )
        logits = output[0]
        loss: Tensor | None = None
        if labels is not None:
            _check_targets(inputs["image"], self.config)
            loss = autoencoding_loss(logits, inputs, points, labels)
        return head_output(PerceiverClassifierOutput, output, logits, loss)


def _check_targets(image: Tensor, config: PerceiverConfig) -> None:
    size = (image.shape[1], *image.shape[3:])
    if size != tuple(config.output_shape[1:]):
        raise ValueError(
            f"With labels, the image input is the target: it must have frames, height and width "
            f"{tuple(config.output_shape[1:])} as decoded; got {size}. Resize it, or leave labels out."
        )
