"""Pictures of every kind, as a viewer shows them; and what is no picture, by name."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.limits import LimitError, Limits
from pipelines.media.container import MediaError
from pipelines.media.images import decode_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(picture: PIL.Image.Image, format: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file


def decoded(file: io.BytesIO, **limits: int) -> np.ndarray:
    pixels = decode_image(file, Limits(**limits))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    return pixels


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_lossless_formats_give_the_pixels_back(format: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decoded(encoded(PIL.Image.fromarray(RGB), format, **options)), RGB)


def test_jpeg_is_what_pillow_decodes() -> None:
    file = encoded(PIL.Image.fromarray(RGB), "JPEG", quality=90)
    np.testing.assert_array_equal(decoded(file), np.array(PIL.Image.open(file)))


def test_grey_becomes_three_channels() -> None:
    grey = RGB[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decoded(encoded(PIL.Image.fromarray(grey), "PNG")), expected)
    bits = PIL.Image.fromarray(grey).convert("1")
    pixels = decoded(encoded(bits, "PNG"))
    np.testing.assert_array_equal(pixels[..., 0], np.array(bits) * np.uint8(255))


def test_sixteen_bits_keep_their_upper_eight() -> None:
    deep = np.array([[0, 255, 256], [257, 32768, 65535]], np.uint16)
    for format in ("PNG", "TIFF"):
        pixels = decoded(encoded(PIL.Image.fromarray(deep), format))
        np.testing.assert_array_equal(pixels[..., 1], [[0, 0, 1], [1, 128, 255]])
    big = encoded(PIL.Image.frombytes("I;16B", (3, 2), deep.astype(">u2").tobytes()), "TIFF")
    np.testing.assert_array_equal(decoded(big)[..., 2], [[0, 0, 1], [1, 128, 255]])
    see_through = encoded(PIL.Image.fromarray(deep), "PNG")
    png = see_through.getvalue()
    chunk = png_chunk(b"tRNS", struct.pack(">H", 257))
    at = png.index(b"IDAT") - 4
    pixels = decoded(io.BytesIO(png[:at] + chunk + png[at:]))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 0, 1], [255, 128, 255]])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_transparency_is_on_white() -> None:
    alpha = np.zeros((6, 9, 1), np.uint8)
    alpha[:3] = 255
    pixels = decoded(encoded(PIL.Image.fromarray(np.concatenate([RGB, alpha], axis=2)), "PNG"))
    np.testing.assert_array_equal(pixels[:3], RGB[:3])
    assert (pixels[3:] == 255).all()


def test_palettes_and_their_transparent_colour() -> None:
    picture = PIL.Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert decoded(encoded(picture, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    for format in ("PNG", "GIF"):
        pixels = decoded(encoded(picture, format, transparency=1))
        assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


def test_cmyk() -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    inks = inks.repeat(16, axis=1).repeat(16, axis=0)
    for format, tolerance in (("TIFF", 0), ("JPEG", 3)):
        pixels = decoded(encoded(PIL.Image.fromarray(inks, "CMYK"), format)).astype(int)
        expected = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]
        assert np.abs(pixels[8, 8::16] - expected).max() <= tolerance


def test_the_first_frame_of_an_animation() -> None:
    frames = [PIL.Image.new("RGB", (5, 4), colour) for colour in ("red", "lime")]
    for format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        file = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        pixels = decoded(file)
        assert pixels.shape == (4, 5, 3)
        assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    turned = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1],
        5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, -1), 7: np.rot90(RGB, 2).swapaxes(0, 1), 8: np.rot90(RGB),
    }  # fmt: skip
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = encoded(PIL.Image.fromarray(RGB), "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(file), turned[orientation])


def test_one_pixel() -> None:
    assert decoded(encoded(PIL.Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an image file; got 0 bytes; upload it again"),
        (
            b"this is no image",
            "expected an image as JPEG, PNG, WEBP, BMP, GIF, TIFF; the file begins with b'this is no image'",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "the file begins with b'%!PS-Adobe-3.0 E'"),
    ],
)
def test_what_is_no_image(data: bytes, message: str) -> None:
    with pytest.raises(MediaError) as caught:
        decode_image(io.BytesIO(data), Limits())
    assert message in str(caught.value)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_cut_file_is_an_error(format: str) -> None:
    picture = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = encoded(picture, format).getvalue()
    with pytest.raises(MediaError, match=r"expected (a whole image|an image as)"):
        decode_image(io.BytesIO(whole[: len(whole) // 2]), Limits())


def test_floats_and_32_bit_integers_have_no_range() -> None:
    for mode in ("F", "I"):
        with pytest.raises(MediaError, match=f"got one of Pillow's mode {mode}, whose range nobody knows"):
            decode_image(encoded(PIL.Image.new(mode, (2, 2)), "TIFF"), Limits())


def bomb(width: int, height: int) -> io.BytesIO:
    """A PNG of a few bytes that promises so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b""))


def test_limits() -> None:
    with pytest.raises(
        LimitError,
        match=r"^Pixels of 30000 x 30000: 900,000,000 are more than the 67,108,864 that limits\.pixels allows",
    ):
        decode_image(bomb(30_000, 30_000), Limits())
    with pytest.raises(
        MediaError, match="expected a whole image"
    ):  # at the limit, so the file itself is read
        decode_image(bomb(8192, 8192), Limits())
    with pytest.raises(LimitError, match=r"The image's bytes: .* limits\.bytes allows"):
        decode_image(bomb(2, 2), Limits(bytes=20))
    before = PIL.Image.MAX_IMAGE_PIXELS
    small = encoded(PIL.Image.new("RGB", (10, 10)), "PNG")
    assert decoded(small, pixels=100).shape == (10, 10, 3)
    with pytest.raises(LimitError, match="Pixels of 10 x 10: 100 are more than the 99"):
        decoded(small, pixels=99)
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def _originals() -> list[bytes]:
    picture = PIL.Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    return [encoded(picture, format).getvalue() for format in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")]


ORIGINALS = _originals()


@settings(max_examples=300, deadline=None)
@given(
    original=st.sampled_from(ORIGINALS),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    keep=st.floats(0, 1),
)
def test_damaged_files_are_pixels_or_a_named_error(
    original: bytes, flips: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(original)
    for place, change in flips:
        data[int(place * len(data))] ^= change
    try:
        pixels = decode_image(io.BytesIO(bytes(data[: int(keep * len(data)) + 1])), Limits(pixels=1 << 20))
    except (MediaError, LimitError):
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def test_the_file_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(ORIGINALS[1])
    with path.open("rb") as file:
        decode_image(file, Limits())
        assert not file.closed
