"""From images of any size to the pixels that the image classifiers were trained on.

The centre of the picture, resized to 224 x 224, in [0, 1], less ImageNet's mean, over its deviation. The numbers are
those of transformers' PerceiverImageProcessorPil to the last bit; torchvision is not needed, and torch is imported
only where tensors are asked for. Shapes: C channels, H height, W width.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image

from perceiver_core.pixels import (
    array_to_rgb,
    center_crop,
    channels_first,
    images_of,
    picture_to_rgb,
    rescale,
    resize,
)

if TYPE_CHECKING:
    import torch

#: a square's side; (height, width); {"height": ..., "width": ...}
Size = int | Sequence[int] | Mapping[str, int]
Statistic = float | Sequence[float]  #: one number for all channels, or one per channel

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
FILE_NAME = "preprocessor_config.json"
# Modes that Pillow turns into 8-bit RGB without guessing a range: 16 bits and floats have no agreed one.
CONVERTIBLE_MODES = ("1", "L", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK")


class BatchFeature(dict[str, Any]):
    """What a processor returns: a dict, to be given to a model as `model(**features)`, with its keys as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchFeature has no {name!r}; it has {sorted(self)}.") from None

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Moves the tensors to a device, casts those of floating point to a dtype, and returns itself.

        The arguments are those of torch.Tensor.to. Raises TypeError where there are no tensors to move.
        """
        import torch

        for name, value in self.items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f"{name} must be a tensor to be moved; got {type(value).__name__}. "
                    "Call the processor with return_tensors='pt'."
                )
            moved = value.to(*args, **kwargs)
            self[name] = moved if value.is_floating_point() else value.to(moved.device)
        return self


@dataclass
class PerceiverImageProcessor:
    """Crops, resizes and normalises images; arguments, defaults and file are Hugging Face's.

    `size` and `crop_size` are a ratio: the crop is the centre of int(size / crop_size * min(H, W)) pixels, zeros around
    images that are smaller, and is then resized to `size`. `resample` is one of PIL.Image.Resampling.
    `do_convert_rgb` True makes every image RGB, transparency on white; False never does; None, the default, does it to
    PIL images that could not be normalised otherwise: grey, palette, RGBA and CMYK. Upstream refuses those. Arrays do
    not say what their channels mean, and are refused here, too.
    Raises ValueError for values that no image could be processed with.
    """

    do_center_crop: bool = True
    crop_size: Size | None = None  # 256
    do_resize: bool = True
    size: Size | None = None  # 224
    resample: int = PIL.Image.Resampling.BICUBIC
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Statistic | None = None  # ImageNet's
    image_std: Statistic | None = None
    do_convert_rgb: bool | None = None

    def __post_init__(self) -> None:
        self.size = dict(zip(("height", "width"), _height_width("size", self.size, 224), strict=True))
        self.crop_size = dict(
            zip(("height", "width"), _height_width("crop_size", self.crop_size, 256), strict=True)
        )
        self.image_mean = _statistic("image_mean", self.image_mean, IMAGENET_MEAN)
        self.image_std = _statistic("image_std", self.image_std, IMAGENET_STD)
        if np.any(np.equal(self.image_std, 0)):
            raise ValueError(
                f"image_std must not be 0; got {self.image_std}. Pass do_normalize=False to leave it out."
            )
        if self.resample not in list(PIL.Image.Resampling):
            known = ", ".join(f"{method.value} ({method.name})" for method in PIL.Image.Resampling)
            raise ValueError(f"resample must be one of {known}; got {self.resample!r}. Published is 3.")
        self.resample = int(self.resample)
        if not (isinstance(self.rescale_factor, (int, float)) and math.isfinite(self.rescale_factor)):
            raise ValueError(
                f"rescale_factor must be finite; got {self.rescale_factor!r}. Published is 1/255."
            )

    def __call__(self, images: Any, **arguments: Any) -> BatchFeature:
        """The same as `preprocess`."""
        return self.preprocess(images, **arguments)

    def preprocess(
        self,
        images: Any,
        *,
        return_tensors: str | None = None,
        data_format: str = "channels_first",
        input_data_format: str | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Makes `pixel_values` of one image or many.

        `images`: a PIL image, a NumPy array or torch tensor (H, W, C) or (C, H, W), a batch of those (B, ...), or a
        list of any of these. Arrays hold whole numbers from 0 to 255, of any type, or floats in [0, 1], which want
        do_rescale=False. `input_data_format` ("channels_first" or "channels_last") says where C is; None infers it, and
        takes the first axis where both could be.
        `return_tensors`: "pt" or "np" for one tensor (B, C, H, W), None for a list of arrays (C, H, W); `data_format`
        "channels_last" puts C last (transformers 5 reads that argument, and ignores it).
        `overrides`: any constructor argument, for this call; None keeps the processor's.
        Raises ValueError for images that cannot be processed, with their place in the batch.
        """
        _check_choice("return_tensors", return_tensors, ("pt", "np", None))
        _check_choice("data_format", data_format, ("channels_first", "channels_last"))
        _check_choice("input_data_format", input_data_format, ("channels_first", "channels_last", None))
        options = self._with(overrides)
        batch = list(images_of(images))
        if not batch:
            raise ValueError("images must have at least one image; got an empty batch. Leave the call out.")
        pixels = []
        for index, image in enumerate(batch):
            try:
                array = options._process(image, input_data_format)  # (C, H, W)
            except ValueError as error:
                raise ValueError(f"Image {index} of {len(batch)}: {error}") from error
            pixels.append(np.moveaxis(array, 0, -1) if data_format == "channels_last" else array)
        if return_tensors is None:
            return BatchFeature(pixel_values=pixels)
        shapes = sorted({array.shape for array in pixels})
        if len(shapes) > 1:
            raise ValueError(
                f"All images must have the same shape to become one tensor; got {shapes}. "
                "Pass do_resize=True, or return_tensors=None for a list."
            )
        stacked = np.stack(pixels)  # (B, C, H, W) or (B, H, W, C)
        return BatchFeature(pixel_values=_to_torch(stacked) if return_tensors == "pt" else stacked)

    def _with(self, overrides: Mapping[str, Any]) -> PerceiverImageProcessor:
        names = [f.name for f in fields(self)]
        unknown = sorted(set(overrides) - set(names))
        if unknown:
            raise TypeError(
                f"Arguments must be return_tensors, data_format, input_data_format or one of {names}; got {unknown}. "
                "Leave the others out."
            )
        # Through the constructor also without overrides: attributes may have been assigned since.
        return replace(self, **{name: value for name, value in overrides.items() if value is not None})

    def _process(self, image: Any, input_data_format: str | None) -> np.ndarray:
        """One image in any form -> (C, H, W)."""
        array = self._channels_first(image, input_data_format)
        size = _height_width("size", self.size, 224)
        if self.do_normalize:
            self._check_channels(array)
        if self.do_rescale and self.rescale_factor < 1 and array.dtype.kind == "f" and 0 < array.max() <= 1:
            warnings.warn(
                "A float image in [0, 1] is divided by 255 once more, as upstream does; pass do_rescale=False.",
                stacklevel=4,
            )
        if self.do_center_crop:
            array = center_crop(array, size, _height_width("crop_size", self.crop_size, 256))
        if self.do_resize:
            array = resize(array, size, self.resample)
        if self.do_rescale:
            array = rescale(array, self.rescale_factor)
        if self.do_normalize:
            if array.dtype.kind != "f":
                array = array.astype(np.float32)
            mean, std = (
                np.array(value, array.dtype).reshape(-1, 1, 1) for value in (self.image_mean, self.image_std)
            )
            array = (array - mean) / std
        return array

    def _channels_first(self, image: Any, input_data_format: str | None) -> np.ndarray:
        is_picture = isinstance(image, PIL.Image.Image)
        if is_picture and (self.do_convert_rgb or (self.do_convert_rgb is None and self._needs_rgb(image))):
            image = picture_to_rgb(image)
        array = channels_first(image, input_data_format)
        return array_to_rgb(array) if self.do_convert_rgb else array

    def _needs_rgb(self, image: PIL.Image.Image) -> bool:
        """Whether normalising the image by three channels' statistics takes a conversion."""
        by_channel = [value for value in (self.image_mean, self.image_std) if isinstance(value, tuple)]
        if not self.do_normalize or not by_channel or len(image.getbands()) == 3:
            return False
        if any(len(value) != 3 for value in by_channel):
            return False  # statistics for another number of channels: not meant for RGB
        if image.mode not in CONVERTIBLE_MODES:
            raise ValueError(
                f"A PIL image must have mode RGB or one of {', '.join(CONVERTIBLE_MODES)}; got {image.mode}. "
                "Scale its values to 0..255 and convert it to RGB first."
            )
        return True

    def _check_channels(self, array: np.ndarray) -> None:
        for name, value in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if isinstance(value, tuple) and len(value) != len(array):
                raise ValueError(
                    f"An image must have {len(value)} channels, as many as {name}; got {len(array)} in (channels, "
                    f"height, width) {array.shape}. Pass do_convert_rgb=True for grey or RGBA arrays, "
                    "input_data_format if the layout was misread."
                )

    @classmethod
    def from_pretrained(cls, path: str | Path, **overrides: Any) -> PerceiverImageProcessor:
        """The processor of a checkpoint, from its preprocessor_config.json of any transformers version.

        `path` is a checkpoint folder or that file; a Perceiver checkpoint without the file has the defaults.
        `overrides` are constructor arguments. Raises CheckpointError.
        """
        from perceiver_core.checkpoint import CheckpointError
        from perceiver_core.sources import checkpoint_folder

        file = Path(path)
        if not file.is_file():
            folder = checkpoint_folder(path)
            file = folder / FILE_NAME
            if not file.is_file():
                if _read_json(folder / "config.json").get("model_type") != "perceiver":
                    raise CheckpointError(
                        f"{folder} must have a {FILE_NAME}, or the config.json of a Perceiver model; got neither. "
                        "Choose a Perceiver checkpoint, or use PerceiverImageProcessor() for the published values."
                    )
                return cls()._with(overrides)
        try:
            return cls.from_dict(_read_json(file))._with(overrides)
        except ValueError as error:
            raise CheckpointError(f"{file}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PerceiverImageProcessor:
        """Reads the keys of a preprocessor_config.json; others, of which old files have many, are left out."""
        kind = values.get("image_processor_type") or values.get("feature_extractor_type") or cls.__name__
        if not str(kind).startswith(("PerceiverImageProcessor", "PerceiverFeatureExtractor")):
            raise ValueError(
                f"image_processor_type must be PerceiverImageProcessor; got {kind!r}. Is this the right checkpoint?"
            )
        names = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in names and v is not None})

    def to_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.do_convert_rgb is None:
            del values["do_convert_rgb"]
        return {**values, "image_processor_type": "PerceiverImageProcessor"}

    def to_json_string(self) -> str:
        """The text of a preprocessor_config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Writes preprocessor_config.json, which transformers reads, too; returns its path in a list, as upstream."""
        file = Path(folder) / FILE_NAME
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.to_json_string(), encoding="utf-8")
        return [str(file)]


PerceiverFeatureExtractor = PerceiverImageProcessor  # transformers 4
PerceiverImageProcessorFast = PerceiverImageProcessor  # transformers 4.57 to 5.22
PerceiverImageProcessorPil = PerceiverImageProcessor  # transformers 5.23


def _to_torch(array: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(array)


def _height_width(name: str, value: Size | None, default: int) -> tuple[int, int]:
    if value is None:
        value = default
    if isinstance(value, Mapping):
        pair = [value[key] for key in ("height", "width")] if set(value) == {"height", "width"} else []
    else:
        pair = (
            [value, value] if isinstance(value, int) else list(value) if isinstance(value, Sequence) else []
        )
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(
            f"{name} must be a positive integer, (height, width) or {{'height': ..., 'width': ...}}; got {value!r}. "
            f"Published is {default}."
        )
    return pair[0], pair[1]


def _statistic(name: str, value: Statistic | None, default: tuple[float, ...]) -> Statistic:
    value = default if value is None else value
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.ndim > 1 or numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must be a finite number, or one per channel; got {value!r}. Published is {default}."
        )
    return numbers.item() if numbers.ndim == 0 else tuple(numbers.tolist())


def _check_choice(name: str, value: object, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}; got {value!r}.")


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a file, empty if there is no file."""
    from perceiver_core.checkpoint import CheckpointError

    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} must be JSON; got: {error}. Is the file complete?") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} must hold a JSON object; got {type(values).__name__}.")
    return cast(dict[str, Any], values)
