"""What the image classifiers see, against PerceiverImageProcessor to the last bit."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from perceiver_core import PerceiverConfig, PerceiverImageProcessor
from pipelines.media.container import MediaError
from pipelines.pictures import check_recipe, fitted, normalised, picture_size

CPU = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("size", [(224, 224), (300, 500), (700, 260), (3, 2), (41, 40)])
@pytest.mark.parametrize(("target", "crop"), [(224, 256), (28, 32)])
def test_the_published_recipe(size: tuple[int, int], target: int, crop: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    processor = PerceiverImageProcessor(size=target, crop_size=crop)
    expected = processor(image, return_tensors="np", input_data_format="channels_last").pixel_values
    found = normalised(fitted(image, (target, target), "crop")[None], CPU)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_every_value_of_a_pixel() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    plain = PerceiverImageProcessor(do_center_crop=False, do_resize=False)
    expected = plain(list(ramp), return_tensors="np", input_data_format="channels_last").pixel_values
    np.testing.assert_array_equal(normalised(ramp, CPU).numpy(), expected)


def test_letterboxed_is_whole_between_black_bars() -> None:
    image = np.full((40, 80, 3), 200, np.uint8)
    found = fitted(image, (28, 28), "letterbox")
    assert (found[7:21] == 200).all()
    assert not found[:7].any()
    assert not found[21:].any()
    assert fitted(np.full((1, 1, 3), 9, np.uint8), (4, 4), "letterbox").tolist() == [[[9] * 3] * 4] * 4


def test_a_pixel_has_no_centre() -> None:
    with pytest.raises(
        MediaError, match=r"at least 2 x 2 pixels.*; got 5 x 1; set options\.fit to letterbox"
    ):
        fitted(np.zeros((1, 5, 3), np.uint8), (4, 4), "crop")


def test_the_checkpoint_says_how_large_it_sees() -> None:
    learned = ("PerceiverForImageClassificationLearned",)
    assert picture_size(PerceiverConfig(architectures=learned, image_size=28)) == (28, 28)
    assert picture_size(PerceiverConfig(architectures=learned, image_size=(28, 20))) == (28, 20)
    fourier = ("PerceiverForImageClassificationFourier",)
    assert picture_size(PerceiverConfig(architectures=fourier, image_size=56)) == (224, 224)


def test_a_processor_that_asks_for_other_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "perceiver"}')
    config = PerceiverConfig(architectures=("PerceiverForImageClassificationLearned",), image_size=28)
    check_recipe(tmp_path, config)  # without the file
    PerceiverImageProcessor(size=28, crop_size=32).save_pretrained(tmp_path)
    check_recipe(tmp_path, config)
    PerceiverImageProcessor(size=28, crop_size=28, image_mean=0.5).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"json asks for crop_size .*28.*, image_mean 0.5, where .* crop_size .*32"
    ):
        check_recipe(tmp_path, config)
    fourier = PerceiverConfig(architectures=("PerceiverForImageClassificationFourier",))
    PerceiverImageProcessor().save_pretrained(tmp_path)
    check_recipe(tmp_path, fourier)
