"""Optical flow between two frames. Shapes: B batch, H height, W width."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from perceiver_core.config import PerceiverConfig
from perceiver_core.decoders import PerceiverOpticalFlowDecoder
from perceiver_core.flow import FLOW_SCALE_FACTOR
from perceiver_core.heads.head import PerceiverHead, head_output
from perceiver_core.image_preprocessor import PerceiverImagePreprocessor
from perceiver_core.losses import end_point_error
from perceiver_core.model import PerceiverModel
from perceiver_core.output_points import Points
from perceiver_core.outputs import PerceiverClassifierOutput


class PerceiverForOpticalFlow(PerceiverHead):
    """Estimates optical flow, as deepmind/optical-flow-perceiver.

    Inputs are the 3x3 patches of two frames, (B, 2, 27, H, W) with the config's train_size. flow.estimate_flow makes
    them, and takes frames of any size.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(config)
        positions = {"num_bands": 64, "max_resolution": config.train_size}
        preprocessor = PerceiverImagePreprocessor(
            config,
            prep_type="patches",
            spatial_downsample=1,
            temporal_downsample=2,
            conv_after_patching=True,
            conv_after_patching_in_channels=54,
            fourier_position_encoding_kwargs=positions,
        )
        self.perceiver = PerceiverModel(
            config,
            input_preprocessor=preprocessor,
            decoder=PerceiverOpticalFlowDecoder(
                config,
                output_image_shape=config.train_size,
                num_channels=preprocessor.num_channels,
                position_encoding_type="fourier",
                fourier_position_encoding_kwargs=positions,
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
        *,
        subsampled_output_points: Points | None = None,
        head_mask: Tensor | None = None,
    ) -> PerceiverClassifierOutput | tuple[Any, ...]:
        """Patches (B, 2, 27, H, W) -> flow (B, H, W, 2), x before y, in units of FLOW_SCALE_FACTOR pixels.

        With `subsampled_output_points`, flat indices (M,) or (B, M) into H x W, only those: (B, M, 2). With `labels`,
        the true flow in pixels in the logits' shape, `loss` is the end-point error in pixels (upstream raises
        NotImplementedError). See PerceiverModel.forward for the rest.
        """
        output = self.perceiver(
            inputs,
            attention_mask=attention_mask,
            subsampled_output_points=subsampled_output_points,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            head_mask=head_mask,
        )
        logits = output[0]
        loss = None if labels is None else end_point_error(logits * FLOW_SCALE_FACTOR, labels)
        return head_output(PerceiverClassifierOutput, output, logits, loss)
