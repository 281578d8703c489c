"""One image file object to RGB pixels, safely, as a viewer shows it.

The first frame of what is animated, turned as EXIF says, with transparency on white. Grey becomes three equal channels;
of 16 bits the upper 8 are kept, in grey as Pillow does it in colour; CMYK is converted without its ICC profile.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps

from perceiver_core.pixels import picture_to_rgb
from pipelines.limits import LimitError, Limits
from pipelines.media.container import MediaError

Image = npt.NDArray[np.uint8]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
#: What Pillow turns into 8-bit RGB without guessing a range; of 32-bit integers and floats nobody knows it.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")

_ONE_AT_A_TIME = Lock()  # Pillow's own limit and Python's warning filters are the process's


def decode_image(file: BinaryIO, limits: Limits) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3). Raises MediaError for what is no image, damaged or cut, LimitError for what is too large."""
    with _opened(file, limits) as image:
        image.load()
        PIL.ImageOps.exif_transpose(image, in_place=True)
        return _rgb(image)


def image_size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """Height and width by the image's header, as they are stored; raises what decode_image does of a header."""
    with _opened(file, limits) as image:
        return image.height, image.width


@contextmanager
def _opened(file: BinaryIO, limits: Limits) -> Iterator[PIL.Image.Image]:
    """An image of which the header is read; whatever Pillow raises inside the `with` becomes a MediaError."""
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise MediaError("expected an image file; got 0 bytes; upload it again")
    limits.check("bytes", size, "The image's bytes")
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    try:
        with _quietly(), PIL.Image.open(file, formats=FORMATS) as image:
            limits.check("pixels", image.width * image.height, f"Pixels of {image.width} x {image.height}")
            yield image
    except PIL.UnidentifiedImageError:
        raise MediaError(
            f"expected an image as {', '.join(FORMATS)}; the file begins with {head!r}, which is none of them or "
            "has a broken header; convert it, or leave it out of the input"
        ) from None
    except (MediaError, LimitError, MemoryError):
        raise
    # Pillow's decoders raise whatever comes up in a damaged file: OSError, SyntaxError, struct.error, IndexError...
    except Exception as error:
        raise MediaError(
            f"expected a whole image; Pillow says: {str(error) or type(error).__name__}; "
            "fetch the file again or repair it"
        ) from error


def _rgb(image: PIL.Image.Image) -> Image:
    """Any picture -> (H, W, 3)."""
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)  # (H, W) uint16
        upper = (grey >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if transparent is not None:  # of grey, one value: on white, as in other modes
            upper[grey == transparent] = 255
        return np.repeat(upper[..., None], 3, axis=2)  # (H, W, 3)
    if image.mode not in MODES:
        raise MediaError(
            f"expected an image of 8 or 16 bits a channel; got one of Pillow's mode {image.mode}, whose range nobody "
            "knows; scale it to 0..255 and save it as RGB"
        )
    plain = image.mode == "RGB" and "transparency" not in image.info  # then conversions would only copy
    return np.array(image if plain else picture_to_rgb(image))


@contextmanager
def _quietly() -> Iterator[None]:
    """Our limit on pixels in the place of Pillow's, and no warnings: the rest of them is about metadata."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = known
