"""Images as arrays (C, H, W): from any form, cropped, resized and scaled, with upstream's rounding at every step.

Shapes: C channels, H height, W width. Raises ValueError for images that cannot be processed.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image


def channels_first(image: Any, input_data_format: str | None) -> np.ndarray:
    """A PIL image, NumPy array or torch tensor -> (C, H, W), checked."""
    if isinstance(image, PIL.Image.Image):
        array = np.array(image)
        array = array[..., None] if array.ndim == 2 else array  # (H, W, C)
        input_data_format = "channels_last"
    else:
        array = _as_numpy(image)
    if array.ndim != 3:
        raise ValueError(
            f"An image must have shape (height, width, channels) or (channels, height, width); got {array.shape}. "
            "Add an axis to a grey one: image[..., None]."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"An image must hold numbers; got {array.dtype}. Convert it to uint8.")
    if _is_channels_last(array.shape, input_data_format):
        array = np.moveaxis(array, -1, 0)
    if 0 in array.shape:
        raise ValueError(
            f"An image must have at least one pixel; got (channels, height, width) {array.shape}. Leave it out."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("An image must hold finite numbers; got NaN or infinity. Clean it first.")
    return array


def center_crop(image: np.ndarray, size: tuple[int, int], crop_size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) -> (C, h, w), size / crop_size of the shorter side; zeros around an image that is smaller."""
    sides = image.shape[1:]
    crop = [int(s / c * min(sides)) for s, c in zip(size, crop_size, strict=True)]
    if 0 in crop:
        # Upstream resizes the empty crop, to a black picture.
        raise ValueError(
            f"An image must be large enough for a crop of {size} / {crop_size} of its shorter side; "
            f"got (height, width) {sides}. Pass do_center_crop=False."
        )
    missing = [max(c - side, 0) for c, side in zip(crop, sides, strict=True)]
    if any(missing):
        image = np.pad(image, [(0, 0), *((m - m // 2, m // 2) for m in missing)])  # (C, max(H, h), max(W, w))
    top, left = (max(side - c, 0) // 2 for c, side in zip(crop, sides, strict=True))
    return image[:, top : top + crop[0], left : left + crop[1]]


def resize(image: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """(C, H, W) -> (C, h, w), in uint8 as Pillow resizes; floats in [0, 1] by way of 0..255, truncated."""
    if image.shape[0] > 4:
        raise ValueError(
            f"An image must have 1 to 4 channels to be resized; got {image.shape[0]} in (channels, height, width) "
            f"{image.shape}. Pass input_data_format if the layout was misread, or do_resize=False."
        )
    in_unit_range = _is_in_unit_range(image)
    pixels = (rescale(image, 255) if in_unit_range else image).astype(np.uint8)
    pixels = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)  # (H, W) or (H, W, C)
    picture = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    height, width = size
    resized = np.array(picture.resize((width, height), resample=PIL.Image.Resampling(resample)))
    resized = resized[None] if resized.ndim == 2 else np.moveaxis(resized, -1, 0)  # (C, h, w)
    return rescale(resized, 1 / 255) if in_unit_range else resized


def _is_in_unit_range(image: np.ndarray) -> bool:
    """Whether the values are fractions in [0, 1], not whole numbers from 0 to 255."""
    if image.dtype == np.uint8:
        return False
    low, high = image.min(), image.max()
    # in this order, as upstream: an image of zeros and ones is one of whole numbers
    if low >= 0 and high <= 255 and np.allclose(image, image.astype(int)):
        return False
    if low >= 0 and high <= 1:
        return True
    raise ValueError(
        "An image must hold whole numbers from 0 to 255, or floats in [0, 1], to be resized; "
        f"got {image.dtype} from {low} to {high}. Scale it to one of the two."
    )


def rescale(image: np.ndarray, factor: float) -> np.ndarray:
    """float32, rounded once from the product in float64."""
    return (image.astype(np.float64) * factor).astype(np.float32)


def picture_to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """RGB, with transparency on white."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def array_to_rgb(image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (3, H, W) from grey or RGBA, transparency on white; other channel counts are left alone."""
    if len(image) == 1:
        return np.repeat(image, 3, axis=0)
    if len(image) != 4:
        return image
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"A float RGBA image must be in [0, 1]; got {image.min()} to {image.max()}. Scale it, or make it uint8."
        )
    white = 255 if image.dtype.kind in "iu" else 1.0
    alpha = image[3:] / white
    on_white = alpha * image[:3] + (1 - alpha) * white
    return (np.round(on_white) if image.dtype.kind in "iu" else on_white).astype(image.dtype)


def _is_channels_last(shape: tuple[int, ...], input_data_format: str | None) -> bool:
    if input_data_format is not None:
        return input_data_format == "channels_last"
    first, last = shape[0] in (1, 3, 4), shape[2] in (1, 3, 4)
    if not (first or last):
        raise ValueError(
            f"An image must have 1, 3 or 4 channels in its first or last axis; got shape {shape}. "
            "Pass input_data_format for others."
        )
    if first and last:
        warnings.warn(
            f"An image of shape {shape} may have its channels first or last; first is taken, as upstream does. "
            "Pass input_data_format.",
            stacklevel=5,
        )
    return not first


def images_of(images: Any) -> Iterator[Any]:
    """The images of nested lists and of arrays (B, H, W, C), one by one."""
    if isinstance(images, (list, tuple)):
        for item in images:
            yield from images_of(item)
    elif getattr(images, "ndim", None) == 4:
        yield from images
    else:
        yield images


def _as_numpy(image: Any) -> np.ndarray:
    torch = sys.modules.get("torch")  # without it nobody can have made a tensor
    if torch is not None and isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float() if image.dtype == torch.bfloat16 else image  # NumPy has no bfloat16
        return image.numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"An image must be a PIL image, a NumPy array or a torch tensor; got {type(image).__name__}. "
            "Open files with PIL.Image.open."
        )
    return image
