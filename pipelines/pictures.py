"""Images as the image classifiers take them: the centre of the picture, resized, in [0, 1], less ImageNet's mean.

Crop and resize are the CPU workers' (they are Pillow's, and no tensor library has the same numbers); what is left is
arithmetic on uint8, and done on the device: in PerceiverImageProcessor's order and precision it is exact there too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from perceiver_core.images import FILE_NAME, IMAGENET_MEAN, IMAGENET_STD, PerceiverImageProcessor
from perceiver_core.pixels import center_crop, resize
from pipelines.describing import column
from pipelines.media.container import MediaError
from pipelines.media.resize import Fit, picture_box

ARCHITECTURES = (
    "PerceiverForImageClassificationLearned",
    "PerceiverForImageClassificationFourier",
    "PerceiverForImageClassificationConvProcessing",
)

#: What every row says of its image.
SIZE = (
    column("height", pa.int32(), "of the image as shown, in pixels"),
    column("width", pa.int32(), "of the image as shown, in pixels"),
)

_SIZE, _CROP = (224, 224), (256, 256)  # as published: 7/8 of the shorter side become 224 x 224


def picture_size(config: PerceiverConfig) -> tuple[int, int]:
    """Height and width of what the checkpoint sees: as many pixels as it has trained positions, else as published."""
    if config.architectures[0] != "PerceiverForImageClassificationLearned":
        return _SIZE
    size = config.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def check_recipe(folder: Path, config: PerceiverConfig) -> None:
    """Raise ValueError if the checkpoint's preprocessor_config.json, where there is one, asks for other pictures."""
    if not (folder / FILE_NAME).is_file():
        return
    said = PerceiverImageProcessor.from_pretrained(folder)
    height, width = picture_size(config)
    crops = {"height": height * _CROP[0] // _SIZE[0], "width": width * _CROP[1] // _SIZE[1]}
    ours = PerceiverImageProcessor(size={"height": height, "width": width}, crop_size=crops)
    asked, made = said.to_dict(), ours.to_dict()
    others = [f"{name} {asked.get(name)}" for name in made if asked.get(name) != made[name]]
    if others:
        raise ValueError(
            f"the checkpoint's {FILE_NAME} asks for {', '.join(others)}, where images are prepared as published: "
            f"{', '.join(f'{name} {made[name]}' for name in made if asked.get(name) != made[name])}. Prepare such "
            "images yourself, with PerceiverImageProcessor, or remove the file if it isn't true."
        )


def fitted(image: npt.NDArray[np.uint8], size: tuple[int, int], fit: Fit) -> npt.NDArray[np.uint8]:
    """(H, W, 3) -> (*size, 3): the centre as published, or all of it between black bars.

    Raises MediaError for an image of less than 2 pixels a side, which has no such centre.
    """
    channels = np.moveaxis(image, -1, 0)  # 3, H, W
    if fit == "crop":
        if min(image.shape[:2]) < 2:
            raise MediaError(
                f"expected an image of at least 2 x 2 pixels, to crop its centre; got {image.shape[1]} x "
                f"{image.shape[0]}; set options.fit to letterbox, or leave it out of the input"
            )
        cropped = center_crop(channels, _SIZE, _CROP)  # 3, 7/8 side, 7/8 side
        return np.ascontiguousarray(np.moveaxis(resize(cropped, size, PIL.Image.Resampling.BICUBIC), 0, -1))
    top, left, height, width = picture_box((image.shape[0], image.shape[1]), size)
    whole = np.zeros((*size, 3), np.uint8)
    whole[top : top + height, left : left + width] = np.moveaxis(
        resize(channels, (height, width), PIL.Image.Resampling.BICUBIC), 0, -1
    )
    return whole


def normalised(pixels: npt.NDArray[np.uint8], model: Any) -> Any:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) floats on the model's device, the numbers of PerceiverImageProcessor."""
    import torch

    given = torch.from_numpy(pixels).to(model.device).permute(0, 3, 1, 2)  # B, 3, H, W
    mean, std = (
        torch.tensor(value, device=model.device).view(1, 3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD)
    )
    scaled = (given.double() * (1 / 255)).float()  # rounded once, from the product in float64
    plain = getattr(model, "model", model)  # a folded model is given float32, and rounds for itself
    return ((scaled - mean) / std).to(plain.dtype)
