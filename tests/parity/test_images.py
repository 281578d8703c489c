"""Images against transformers' PerceiverImageProcessorPil: equal to the last bit, and the file both ways."""

import json
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.models.perceiver.image_processing_pil_perceiver import PerceiverImageProcessorPil

from perceiver_core.images import PerceiverImageProcessor

SMALL = {"size": {"height": 14, "width": 14}, "crop_size": {"height": 16, "width": 16}}  # the published ratio


def picture(height, width, mode="RGB", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return (
        PIL.Image.fromarray(values).convert("RGB").convert(mode)
        if mode != "RGBA"
        else PIL.Image.fromarray(values)
    )


def array(height, width, dtype="uint8", channels=3, seed=0):
    random = np.random.default_rng(seed)
    if dtype in ("float16", "float32", "float64"):
        return random.random((height, width, channels)).astype(dtype)
    return random.integers(0, 256, (height, width, channels)).astype(dtype.removeprefix("whole "))


def assert_same(images, constructor=None, **arguments):
    constructor = constructor or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ours on ambiguous layouts and on [0, 1] rescaled
        theirs = PerceiverImageProcessorPil(**constructor)(images, **arguments)
        ours = PerceiverImageProcessor(**constructor)(images, **arguments)
    assert list(ours) == list(theirs) == ["pixel_values"]
    expected, got = theirs["pixel_values"], ours["pixel_values"]
    assert type(got) is type(expected)
    if isinstance(expected, list):
        assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else torch.equal(a, b)


@pytest.mark.parametrize(
    "size", [(256, 256), (300, 400), (401, 299), (63, 65), (3, 500), (2, 2), (224, 224), (17, 900)]
)
def test_published_values(size):
    assert_same(picture(*size), return_tensors="np")


SIDES = st.integers(2, 40)


@given(
    height=SIDES,
    width=SIDES,
    kind=st.sampled_from(
        ["PIL", "uint8", "CHW", "torch", "float32", "float16", "float64", "int64", "whole float32"]
    ),
    flags=st.fixed_dictionaries(
        {name: st.booleans() for name in ("do_center_crop", "do_resize", "do_rescale", "do_normalize")}
    ),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    crop_size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    resample=st.sampled_from([0, 1, 2, 3, 4, 5]),
    statistics=st.sampled_from([{}, {"image_mean": 0.4, "image_std": 0.3}, {"image_mean": [0.1, 0.2, 0.9]}]),
    rescale_factor=st.sampled_from([1 / 255, 2 / 255, 1.7]),
    return_tensors=st.sampled_from([None, "np", "pt"]),
    in_constructor=st.booleans(),
)
@settings(max_examples=1000, deadline=None)
def test_every_option(
    height,
    width,
    kind,
    flags,
    size,
    crop_size,
    resample,
    statistics,
    rescale_factor,
    return_tensors,
    in_constructor,
):
    crop = [int(s / c * min(height, width)) for s, c in zip(size, crop_size, strict=True)]
    assume(all(crop) or not flags["do_center_crop"])  # of an empty crop, upstream makes a black picture
    if kind == "PIL":
        image = picture(height, width)
    elif kind in ("CHW", "torch"):
        image = np.ascontiguousarray(array(height, width).transpose(2, 0, 1))
        image = torch.from_numpy(image) if kind == "torch" else image
    else:
        image = array(height, width, kind)
    options = {
        **flags,
        "size": list(size),
        "crop_size": list(crop_size),
        "resample": resample,
        **statistics,
        "rescale_factor": rescale_factor,
    }
    layout = (
        {}
        if kind == "PIL"
        else {"input_data_format": "channels_first" if kind in ("CHW", "torch") else "channels_last"}
    )
    constructor, call = (options, {}) if in_constructor else ({}, options)
    assert_same(image, constructor, return_tensors=return_tensors, **call, **layout)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (1, 40)])
def test_one_pixel_wide(size):
    for options in (
        {"do_center_crop": False},
        {"size": 9, "crop_size": 9},
        {"size": (3, 20), "crop_size": (2, 7)},
    ):
        assert_same(picture(*size), return_tensors="np", **options)
        assert_same(array(*size), input_data_format="channels_last", return_tensors="np", **options)


def test_layouts_are_inferred_alike():
    for shape in [(3, 8, 9), (8, 9, 3), (3, 8, 3), (3, 3, 3), (1, 9, 3), (3, 9, 4)]:
        assert_same(
            np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
            image_mean=0.5,
            image_std=0.5,
            return_tensors="np",
        )


MODES = ["1", "L", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I"]


def moded(mode):
    through = {"PA": "LA", "RGBa": "RGBA"}
    image = picture(21, 30, "RGBA") if mode in ("LA", "RGBa") else picture(21, 30, through.get(mode, "RGB"))
    image = image.convert(through[mode]) if mode in through else image
    return image.convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode):
    image = moded(mode)
    assert_same(image, {**SMALL, "do_normalize": False}, return_tensors="np")
    assert_same(image, {**SMALL, "image_mean": 0.5, "image_std": 0.5}, return_tensors="np")
    if mode != "LAB":  # Pillow converts it no further
        assert_same(image, {**SMALL, "do_convert_rgb": True}, return_tensors="np")
    if len(image.getbands()) == 3:
        assert_same(image, SMALL, return_tensors="np")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("YCbCr", "HSV", "LAB", "I")])
def test_modes_that_upstream_refuses_are_what_its_conversion_makes_of_them(mode):
    with pytest.raises(ValueError, match="mean must have"):
        PerceiverImageProcessorPil(**SMALL)(moded(mode))
    expected = PerceiverImageProcessorPil(**SMALL)(moded(mode), do_convert_rgb=True, return_tensors="np")
    got = PerceiverImageProcessor(**SMALL)(moded(mode), return_tensors="np")
    assert np.array_equal(got.pixel_values, expected.pixel_values)


def test_palette_with_a_transparent_entry():
    image = picture(21, 30).quantize(8)
    image.info["transparency"] = 3
    assert_same(image, {**SMALL, "do_convert_rgb": True}, return_tensors="np")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64", "bool"])
def test_arrays_to_rgb(channels, dtype):
    image = array(12, 15, dtype, channels) if dtype != "bool" else array(12, 15, "uint8", channels) > 127
    for options in ({"do_rescale": False}, {"do_rescale": False, "do_resize": False, "do_normalize": False}):
        assert_same(image, {**SMALL, "do_convert_rgb": True}, return_tensors="np", **options)


def test_batches():
    one, other = picture(20, 31), picture(33, 18, seed=1)
    stack = np.stack([array(9, 12, seed=seed) for seed in range(3)])
    for images in (
        [one, other],
        (one, other),
        [[one, other], [other]],
        [array(9, 12), array(20, 12)],
        [one, array(9, 12)],
        stack,
        torch.from_numpy(stack),
        list(stack),
        [stack, stack[:1]],
    ):
        for return_tensors in (None, "np", "pt"):
            assert_same(images, SMALL, return_tensors=return_tensors)


def test_channels_last_out_is_theirs_of_transformers_4():
    """transformers 5 takes data_format and ignores it."""
    images = [picture(20, 31), picture(33, 18)]
    expected = PerceiverImageProcessorPil(**SMALL)(images, return_tensors="np").pixel_values
    got = PerceiverImageProcessor(**SMALL)(
        images, return_tensors="np", data_format="channels_last"
    ).pixel_values
    assert np.array_equal(got, expected.transpose(0, 2, 3, 1))


OPTIONS = [
    {},
    {"size": 12, "crop_size": (20, 24), "resample": 2, "do_normalize": False, "do_convert_rgb": True},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": 0.5, "rescale_factor": 0.01, "do_center_crop": False},
    {"do_resize": False, "do_rescale": False},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_files_both_ways(tmp_path, options):
    theirs, ours = PerceiverImageProcessorPil(**options), PerceiverImageProcessor(**options)
    theirs.save_pretrained(tmp_path / "theirs")
    assert ours.save_pretrained(tmp_path / "ours") == [str(tmp_path / "ours" / "preprocessor_config.json")]
    file = "preprocessor_config.json"
    assert (tmp_path / "ours" / file).read_text() == (tmp_path / "theirs" / file).read_text()
    assert json.loads(ours.to_json_string()) == json.loads(theirs.to_json_string())
    assert PerceiverImageProcessor.from_pretrained(tmp_path / "theirs") == ours
    assert PerceiverImageProcessor.from_pretrained(tmp_path / "theirs" / file) == ours
    again = PerceiverImageProcessorPil.from_pretrained(tmp_path / "ours")
    assert again.to_dict() == theirs.to_dict()


@pytest.mark.parametrize(
    "written",
    [
        {  # transformers 4.14
            "crop_size": 256,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "PerceiverFeatureExtractor",
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "size": 224,
        },
        {  # 4.57's fast processor
            "crop_size": {"height": 32, "width": 32},
            "data_format": "channels_first",
            "default_to_square": True,
            "device": None,
            "disable_grouping": None,
            "do_center_crop": True,
            "do_convert_rgb": None,
            "image_processor_type": "PerceiverImageProcessorFast",
            "input_data_format": None,
            "resample": 2,
            "return_tensors": None,
            "size": {"height": 24, "width": 30},
        },
    ],
)
def test_old_files_read_alike(tmp_path, written):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    theirs = PerceiverImageProcessorPil.from_pretrained(tmp_path)
    ours = PerceiverImageProcessor.from_pretrained(tmp_path)
    image = picture(50, 41)
    assert np.array_equal(
        ours(image, return_tensors="np").pixel_values, theirs(image, return_tensors="np").pixel_values
    )
