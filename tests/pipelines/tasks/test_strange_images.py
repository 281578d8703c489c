"""Images of every strange kind through a decoder's process: each is what a viewer shows, or one named error."""

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from perceiver_core import PerceiverConfig
from pipelines.contents import IMAGE
from pipelines.errors import ItemError
from pipelines.limits import Limits
from pipelines.pictures import fitted
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sources.files import Files
from pipelines.stages import Decode, split_block
from pipelines.tasks.image_classification import ImageClassification
from pipelines.tensors import unpack
from tests.clips import write_clip
from tests.pipelines.tasks.tiny import LEARNED

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
CONFIG = PerceiverConfig(architectures=(LEARNED,), image_size=28)
Pixels = np.ndarray


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header_alone(width: int, height: int) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def good_images(folder: Path) -> dict[str, Pixels]:
    """By name, the RGB that each of them shows."""
    picture = PIL.Image.fromarray(RGB)
    shown = dict.fromkeys(("wrong-extension.jpg", "animated.gif", "turned.png", "lossless.webp"), RGB)
    picture.save(folder / "wrong-extension.jpg", "PNG")
    picture.save(folder / "lossless.webp", lossless=True)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(np.rot90(RGB)).save(folder / "turned.png", exif=exif)
    few = picture.quantize(32)
    few.save(folder / "animated.gif", save_all=True, append_images=[few.rotate(180)])
    shown["animated.gif"] = np.array(few.convert("RGB"))
    half = np.full((30, 40, 1), 255, np.uint8)
    half[:15] = 0
    PIL.Image.fromarray(np.concatenate([RGB, half], axis=2)).save(folder / "alpha.png")
    shown["alpha.png"] = np.where(half == 255, RGB, 255)
    deep = RGB[..., 0].astype(np.uint16) * 256 + 77
    PIL.Image.fromarray(deep).save(folder / "deep.png")
    shown["deep.png"] = np.repeat(RGB[..., :1], 3, axis=2)
    inks = np.zeros((30, 40, 4), np.uint8)
    inks[..., 1] = 255
    PIL.Image.fromarray(inks, "CMYK").save(folder / "cmyk.tif")
    shown["cmyk.tif"] = np.broadcast_to(np.array([255, 0, 255], np.uint8), (30, 40, 3))
    PIL.Image.fromarray(RGB[..., 1]).convert("1").save(folder / "bits.bmp")
    bits = np.array(PIL.Image.fromarray(RGB[..., 1]).convert("1"))
    shown["bits.bmp"] = np.repeat(bits[..., None] * np.uint8(255), 3, axis=2)
    return shown


def bad_images(folder: Path) -> dict[str, tuple[str, str]]:
    """By name, the class and the beginning of what is said of each."""
    files = {
        "bomb.png": header_alone(60_000, 60_000),
        "huge-header.png": header_alone(8192, 8192),
        "text.png": b"not an image at all",
        "zero.png": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    PIL.Image.fromarray(RGB).save(folder / "cut.jpg", quality=95)
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    PIL.Image.new("RGB", (1, 1)).save(folder / "one.png")
    PIL.Image.new("F", (8, 8)).save(folder / "floats.tif")
    write_clip(folder / "video.mp4", frames=2)
    (folder / "video.mp4").rename(folder / "video.png")
    none = "expected an image as JPEG, PNG, WEBP, BMP, GIF, TIFF; the file begins with"
    return {
        "bomb.png": (
            "LimitError",
            "Pixels of 60000 x 60000: 3,600,000,000 are more than the 67,108,864 that limits.pix",
        ),
        "huge-header.png": ("MediaError", "expected a whole image; Pillow says: image file is truncated"),
        "text.png": ("MediaError", f"{none} b'not an image at "),
        "zero.png": ("MediaError", "expected an image file; got 0 bytes; upload it again"),
        "cut.jpg": ("MediaError", "expected a whole image; Pillow says: image file is truncated"),
        "one.png": (
            "MediaError",
            "expected an image of at least 2 x 2 pixels, to crop its centre; got 1 x 1",
        ),
        "floats.tif": (
            "MediaError",
            "expected an image of 8 or 16 bits a channel; got one of Pillow's mode F",
        ),
        "video.png": ("MediaError", none),
    }


def test_each_is_its_pixels_or_one_error(tmp_path: Path) -> None:
    shown, said = good_images(tmp_path), bad_images(tmp_path)
    task, source = ImageClassification(), Files((str(tmp_path),), IMAGE)
    decode = Decode(task, CONFIG, source, Limits())
    plan = cut_shards(list_and_probe(source, [decode.decoder]), 64)
    good, failed = split_block(decode.shard(shards(plan)[0]))
    decode.decoder.close()
    type = task.input_schema(CONFIG).field("image").type
    found = dict(zip(map(name_of, good["uri"].to_pylist()), unpack(good["image"], type), strict=True))
    assert found.keys() == shown.keys()
    for name, pixels in shown.items():
        np.testing.assert_array_equal(found[name], fitted(pixels, (28, 28), "crop"), err_msg=name)
    errors = {name_of(row["uri"]): ItemError.from_json(row["error"]) for row in failed.to_pylist()}
    assert errors.keys() == said.keys()
    for name, (kind, message) in said.items():
        assert (errors[name].stage, errors[name].kind) == ("decode", kind), errors[name]
        assert errors[name].message.startswith(message), errors[name]


def name_of(uri: str) -> str:
    return Path(uri).name


@pytest.mark.parametrize("shape", [(8192, 8192), (1, 67_000_000)])
def test_pixels_that_the_memory_has_no_room_for_cost_one_item(shape: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(header_alone(*shape))
    source = Files((str(tmp_path),), IMAGE)
    decode = Decode(ImageClassification(), CONFIG, source, Limits(memory=64 << 20))
    plan = cut_shards(list_and_probe(source, [decode.decoder]), 64)
    _, failed = split_block(decode.shard(shards(plan)[0]))
    decode.decoder.close()
    [error] = [ItemError.from_json(text) for text in failed["error"].to_pylist()]
    assert error.kind == "DecodeMemory", error
