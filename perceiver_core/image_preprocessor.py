"""Images and videos as tokens: pixels, patches, and convolutions that make fewer of them.

Shapes: B batch, T frames, C channels, H height, W width, N tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.preprocessors import PositionedPreprocessor, Preprocessed

PREP_TYPES = ("conv", "conv1x1", "patches", "pixels")


class PerceiverImagePreprocessor(PositionedPreprocessor):
    """Makes tokens of images (B, C, H, W) and videos (B, T, C, H, W), and gives them positions.

    `prep_type`: "conv" (a 7x7 convolution and a max-pool, a quarter of the size whatever `spatial_downsample` says),
    "conv1x1" (a projection of every `spatial_downsample`-th pixel), "patches" (space to depth, then with
    `conv_after_patching` a projection) or "pixels" (every `spatial_downsample`-th pixel as it is).
    """

    def __init__(
        self,
        config: PerceiverConfig,
        prep_type: str = "conv",
        spatial_downsample: int = 4,
        temporal_downsample: int = 1,
        position_encoding_type: str = "fourier",
        in_channels: int = 3,
        out_channels: int = 64,
        conv_after_patching: bool = False,
        conv_after_patching_in_channels: int = 54,
        conv2d_use_batchnorm: bool = True,
        concat_or_add_pos: str = "concat",
        project_pos_dim: int = -1,
        **position_encoding_kwargs: Any,
    ) -> None:
        super().__init__()
        if prep_type not in PREP_TYPES:
            raise ValueError(f"prep_type must be one of {', '.join(PREP_TYPES)}; got {prep_type!r}.")
        if temporal_downsample != 1 and prep_type in ("conv", "conv1x1"):
            raise ValueError(
                f"prep_type {prep_type!r} keeps every frame: temporal_downsample must be 1; got {temporal_downsample}."
            )
        if prep_type == "conv" and spatial_downsample not in (1, 4):
            raise ValueError(
                "prep_type 'conv' makes images 4 times smaller: spatial_downsample must be 4, or 1 as in the "
                f"published model, which means the same; got {spatial_downsample}."
            )
        self.prep_type = prep_type
        self.spatial_downsample = spatial_downsample
        self.temporal_downsample = temporal_downsample
        self.in_channels = in_channels
        self.out_channels = out_channels
        if prep_type == "conv":
            self.convnet = Conv2DDownsample(config, in_channels, out_channels, conv2d_use_batchnorm)
        elif prep_type == "conv1x1":
            self.convnet_1x1 = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=spatial_downsample)
        self.build_positions(
            position_encoding_type, concat_or_add_pos, project_pos_dim, **position_encoding_kwargs
        )
        self.projects_patches = prep_type == "patches" and conv_after_patching
        if conv_after_patching:
            self.conv_after_patches = nn.Linear(conv_after_patching_in_channels, out_channels)

    @property
    def content_channels(self) -> int:
        if self.prep_type in ("conv", "conv1x1") or self.projects_patches:
            return self.out_channels
        if self.prep_type == "pixels":
            return self.in_channels
        return self.in_channels * self.spatial_downsample**2 * self.temporal_downsample

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        network_input_is_1d: bool = True,
        interpolate_pos_encoding: bool = False,
    ) -> Preprocessed:
        """(B, C, H, W) or (B, T, C, H, W) -> (B, N, num_channels), tokens in (t, y, x) order.

        With network_input_is_1d=False the tokens keep their grid: (B, [T,] H, W, num_channels).
        """
        self.check(inputs)
        x = self.content(inputs)  # (B, [T,] H, W, C)
        tokens = self.with_positions(x, interpolate_pos_encoding)
        if not network_input_is_1d:
            return Preprocessed(tokens.unflatten(1, x.shape[1:-1]), None, x)
        return Preprocessed(tokens, None, x.flatten(1, -2))

    def content(self, inputs: Tensor) -> Tensor:
        """Images or videos -> what tokens say besides their position, (B, [T,] H, W, content_channels)."""
        s, t = self.spatial_downsample, self.temporal_downsample
        if self.prep_type == "patches":
            x = space_to_depth(inputs, t, s)
            if x.ndim == 5 and x.shape[1] == 1 and self.position_embeddings.num_dimensions != 3:
                x = x[:, 0]  # the two frames of optical flow are one image
            return self.conv_after_patches(x) if self.projects_patches else x
        if self.prep_type == "pixels":
            if inputs.ndim == 5:
                inputs = inputs[:, ::t]
            x = inputs[..., ::s, ::s]  # upstream's slices of images fall on batch and channels
        else:
            net = self.convnet if self.prep_type == "conv" else self.convnet_1x1
            x = net(inputs.flatten(0, -4))  # (B * T, C, H, W)
            x = x.unflatten(0, inputs.shape[:-3])
        return x.movedim(-3, -1)  # (B, [T,] H, W, C)

    def check(self, inputs: Tensor) -> None:
        """Refuses inputs of another shape."""
        s, t, c = self.spatial_downsample, self.temporal_downsample, self.in_channels
        patches = self.prep_type == "patches"
        d = self.position_embeddings.num_dimensions
        ranks = {2: (4,), 3: (5,)}.get(d, (4, 5))
        if patches and d == 2:
            ranks = (4, 5) if t == 1 else (5,)
        if patches and self.projects_patches:
            c = self.conv_after_patches.in_features // (s * s * t)
        shape = inputs.shape
        fits = len(shape) in ranks and shape[-3] == c and inputs.numel() > 0
        if fits and patches:
            fits = not (shape[-1] % s or shape[-2] % s or (len(shape) == 5 and shape[1] % t))
        if not fits:
            shapes = {4: f"(batch, {c}, height, width)", 5: f"(batch, frames, {c}, height, width)"}
            multiples = f", frames a multiple of {t}, height and width of {s}" if patches else ""
            raise ValueError(
                f"The image input must have shape {' or '.join(shapes[r] for r in ranks)}{multiples}; "
                f"got {tuple(shape)}. Put channels before height and width; resize, crop or pad."
            )
        if not inputs.is_floating_point():
            raise ValueError(
                f"The image input must be floating point; got {inputs.dtype}. "
                "Use PerceiverImageProcessor, or scale pixels as the checkpoint expects them."
            )


def space_to_depth(frames: Tensor, temporal_block_size: int = 1, spatial_block_size: int = 1) -> Tensor:
    """(B, C, H, W) or (B, T, C, H, W) -> (B, [T/t,] H/s, W/s, t * s * s * C), depth in the order (t, y, x, c)."""
    t, s = temporal_block_size, spatial_block_size
    is_image = frames.ndim == 4
    x = frames[:, None] if is_image else frames
    x = x.unflatten(4, (-1, s)).unflatten(3, (-1, s)).unflatten(1, (-1, t))
    # (B, T/t, t, C, H/s, s, W/s, s) -> (B, T/t, H/s, W/s, t, s, s, C)
    x = x.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4)
    return x[:, 0] if is_image else x


class Conv2DDownsample(nn.Module):
    """A 7x7 convolution and a 3x3 max-pool, both of stride 2.

    Upstream pads the convolution by 3 on each side and the pool not at all: 224 pixels become 55. The original model
    has TensorFlow's SAME padding for both, which makes 56, and kernels that upstream's conversion transposed: with the
    config's reference "deepmind" all three are as they were.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        in_channels: int = 3,
        out_channels: int = 64,
        use_batchnorm: bool = True,
    ) -> None:
        super().__init__()
        self.is_original = config.reference == "deepmind"
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=7, stride=2, bias=False)
        self.batchnorm = nn.BatchNorm2d(out_channels) if use_batchnorm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, about H / 4, about W / 4)."""
        kernel = self.conv.weight
        if self.is_original:
            kernel = kernel.transpose(2, 3)
            x = nn.functional.pad(x, _same_padding(x, kernel_size=7))
        else:
            x = nn.functional.pad(x, (3, 3, 3, 3))
        x = nn.functional.conv2d(x, kernel, stride=2)
        x = torch.relu(self.batchnorm(x))
        if self.is_original:
            x = nn.functional.pad(x, _same_padding(x, kernel_size=3), value=-torch.inf)
        return nn.functional.max_pool2d(x, kernel_size=3, stride=2)


def _same_padding(x: Tensor, kernel_size: int, stride: int = 2) -> tuple[int, int, int, int]:
    """TensorFlow's SAME: outputs of ceil(size / stride), what is odd goes to the right and below."""
    left_right = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        left_right += [total // 2, total - total // 2]
    left, right, top, bottom = left_right
    return left, right, top, bottom
