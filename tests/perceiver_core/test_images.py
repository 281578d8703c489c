"""PerceiverImageProcessor: what it returns, refuses, reads and writes; its numbers are a matter of parity."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import perceiver_core
from perceiver_core import PerceiverConfig, PerceiverImageProcessor
from perceiver_core.checkpoint import CheckpointError
from perceiver_core.images import BatchFeature


def grey(height, width, value=100):
    return PIL.Image.new("RGB", (width, height), (value, value, value))


def test_names_of_other_versions():
    for name in ("PerceiverFeatureExtractor", "PerceiverImageProcessorFast", "PerceiverImageProcessorPil"):
        assert getattr(perceiver_core, name) is PerceiverImageProcessor


def test_published_values():
    processor = PerceiverImageProcessor()
    assert processor.size == {"height": 224, "width": 224}
    assert processor.crop_size == {"height": 256, "width": 256}
    assert processor == PerceiverImageProcessor(size=224, crop_size=256)  # transformers 4.14
    pixels = processor(grey(300, 400), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels.dtype == torch.float32
    expected = (100 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0, :, 50, 60], expected)


def test_the_crop_is_the_centre():
    """8 x 12 with 4/5 of 8 rows: 6 rows from row 1, 6 columns from column 3."""
    image = np.arange(8 * 12, dtype=np.uint8).reshape(8, 12, 1).repeat(3, axis=2)
    options = {"size": 4, "crop_size": 5, "do_resize": False, "do_rescale": False, "do_normalize": False}
    (pixels,) = PerceiverImageProcessor(**options)(image).pixel_values
    assert np.array_equal(pixels[0], image[1:7, 3:9, 0])


def test_batch_feature(tmp_path):
    features = PerceiverImageProcessor(size=8, crop_size=9)([grey(20, 30), grey(30, 20)], return_tensors="pt")
    assert isinstance(features, BatchFeature)
    assert {**features}["pixel_values"] is features["pixel_values"] is features.pixel_values
    assert features.to("cpu", torch.float64) is features
    assert features.pixel_values.dtype == torch.float64
    assert features.to(dtype=torch.bfloat16).pixel_values.dtype == torch.bfloat16
    assert features.to(torch.device("meta")).pixel_values.device.type == "meta"
    whole = BatchFeature(pixel_values=torch.tensor([257], dtype=torch.int64)).to("cpu", torch.bfloat16)
    assert whole.pixel_values.dtype == torch.int64
    assert whole.pixel_values.item() == 257
    assert pickle.loads(pickle.dumps(whole)).pixel_values.item() == 257
    with pytest.raises(AttributeError, match=r"BatchFeature has no 'labels'; it has \['pixel_values'\]"):
        _ = features.labels
    with pytest.raises(TypeError, match=r"pixel_values must be a tensor to be moved; got list. Call .*='pt'"):
        PerceiverImageProcessor()(grey(20, 30)).to("cpu")


def test_options_for_one_call():
    processor = PerceiverImageProcessor()
    assert processor(grey(40, 50), size=8, return_tensors="np").pixel_values.shape == (1, 3, 8, 8)
    assert processor(grey(40, 50), size=None, return_tensors="np").pixel_values.shape == (1, 3, 224, 224)
    assert processor(grey(40, 50), do_resize=None, return_tensors="np").pixel_values.shape == (1, 3, 224, 224)
    assert processor.size == {"height": 224, "width": 224}
    processor.size = 16
    assert processor(grey(40, 50), return_tensors="np").pixel_values.shape == (1, 3, 16, 16)
    with pytest.raises(TypeError, match=r"Arguments must be return_tensors, .*; got \['device', 'do_crop'\]"):
        processor(grey(40, 50), device="cpu", do_crop=True)


def test_tensors_of_any_kind():
    pixels = torch.full((3, 10, 12), 0.5, requires_grad=True)
    processor = PerceiverImageProcessor(size=8, crop_size=9, do_rescale=False)
    expected = processor(pixels.detach(), return_tensors="np").pixel_values
    for tensor in (pixels, pixels.detach().bfloat16(), pixels.detach().half()):
        np.testing.assert_array_equal(processor(tensor, return_tensors="np").pixel_values, expected)


def test_warnings():
    processor = PerceiverImageProcessor(size=8, crop_size=9)
    with pytest.warns(
        UserWarning, match=r"in \[0, 1\] is divided by 255 once more.*pass do_rescale=False"
    ) as caught:
        processor(np.full((9, 9, 3), 0.5))
    assert [warning.filename for warning in caught] == [__file__]
    processor(np.full((9, 9, 3), 0.5), do_rescale=False)
    processor(np.zeros((9, 9, 3)))
    with pytest.warns(UserWarning, match=r"shape \(3, 9, 3\) may have its channels first or last; first is"):
        processor(np.zeros((3, 9, 3), np.uint8))
    processor(np.zeros((3, 9, 3), np.uint8), input_data_format="channels_last")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (
            np.zeros((0, 5, 3)),
            r"at least one pixel; got \(channels, height, width\) \(3, 0, 5\). Leave it out",
        ),
        (PIL.Image.new("RGB", (0, 5)), r"at least one pixel; got .* \(3, 5, 0\)"),
        (PIL.Image.new("L", (5, 0)), "at least one pixel"),
        (np.full((9, 5, 3), np.nan), "must hold finite numbers; got NaN or infinity. Clean it first"),
        (np.full((3, 9, 5), np.inf, np.float16), "must hold finite numbers"),
        (
            PIL.Image.new("F", (5, 4)),
            "must have mode RGB or one of",
        ),
        (
            np.zeros((4, 5), np.uint8),
            r"must have shape \(height, width, channels\) or .*; got \(4, 5\). Add an axis",
        ),
        (
            np.zeros((9, 5, 2), np.uint8),
            r"must have 1, 3 or 4 channels in its first or last axis; got shape \(9, 5, 2\)",
        ),
        (
            np.zeros((9, 5, 1), np.uint8),
            "must have 3 channels, as many as image_mean; got 1 in .*do_convert_rgb=True",
        ),
        (
            np.zeros((4, 9, 5), np.uint8),
            r"must have 3 channels.*; got 4 in \(channels, height, width\) \(4, 9, 5\)",
        ),
        (np.zeros((9, 5, 3), complex), "must hold numbers; got complex128. Convert it to uint8"),
        (
            np.full((9, 5, 3), 1.5),
            r"whole numbers from 0 to 255, or floats in \[0, 1\], .*; got float64 from 1.5 to 1.5",
        ),
        (np.full((9, 5, 3), 256), "got int64 from 256 to 256. Scale it to one of the two"),
        (np.full((9, 5, 3), -1), "got int64 from -1 to -1"),
        (
            PIL.Image.new("I;16", (5, 4)),
            "must have mode RGB or one of 1, L, .*; got I;16. Scale its values to 0..255",
        ),
        (
            grey(1, 9),
            r"large enough for a crop of \(224, 224\) / \(256, 256\) of .*; got \(height, width\) \(1, 9\)",
        ),
        (
            "cat.png",
            "must be a PIL image, a NumPy array or a torch tensor; got str. Open files with PIL.Image.open",
        ),
    ],
)
def test_images_refused(image, text):
    with pytest.raises(ValueError, match=f"Image 1 of 2: An? .*image .*{text}"):
        PerceiverImageProcessor()([grey(20, 20), image])


def test_calls_refused():
    processor = PerceiverImageProcessor()
    for arguments, text in [
        ({"return_tensors": "tf"}, r"return_tensors must be one of \('pt', 'np', None\); got 'tf'"),
        (
            {"data_format": "CHW"},
            r"data_format must be one of \('channels_first', 'channels_last'\); got 'CHW'",
        ),
        ({"input_data_format": "HWC"}, "input_data_format must be one of .*; got 'HWC'"),
    ]:
        with pytest.raises(ValueError, match=text):
            processor(grey(9, 9), **arguments)
    with pytest.raises(ValueError, match="must have at least one image; got an empty batch"):
        processor([])
    with pytest.raises(
        ValueError, match=r"same shape .*; got \[\(3, 7, 7\), \(3, 14, 14\)\]. Pass do_resize=True"
    ):
        processor([grey(16, 16), grey(8, 8)], do_resize=False, return_tensors="np")
    with pytest.raises(ValueError, match="must hold finite numbers"):
        processor(PIL.Image.new("F", (5, 4), float("nan")), do_normalize=False)
    with pytest.raises(ValueError, match=r"1 to 4 channels to be resized; got 5 in .*or do_resize=False"):
        processor(np.zeros((5, 9, 9)), input_data_format="channels_first", image_mean=0, image_std=1)
    with pytest.raises(ValueError, match=r"float RGBA image must be in \[0, 1\]; got 0.0 to 2.0. Scale it"):
        processor(
            np.arange(36.0).reshape(3, 3, 4) % 3, input_data_format="channels_last", do_convert_rgb=True
        )


def test_constructor_refusals():
    for arguments, text in [
        ({"size": 0}, r"size must be a positive integer, \(height, width\) or .*; got 0. Published is 224"),
        ({"size": {"shortest_edge": 224}}, "size must be .*; got {'shortest_edge': 224}"),
        ({"crop_size": (1, 2, 3)}, r"crop_size must be .*; got \(1, 2, 3\). Published is 256"),
        ({"crop_size": 2.5}, "crop_size must be .*; got 2.5"),
        ({"resample": 9}, r"resample must be one of 0 \(NEAREST\), .*3 \(BICUBIC\).*; got 9. Published is 3"),
        ({"rescale_factor": float("nan")}, "rescale_factor must be finite; got nan. Published is 1/255"),
        ({"rescale_factor": "1/255"}, "rescale_factor must be finite; got '1/255'"),
        (
            {"image_mean": [0.1, float("inf")]},
            r"image_mean must be a finite number, or one per channel; got \[0.1, inf\]",
        ),
        ({"image_std": []}, r"image_std must be a finite number, or one per channel; got \[\]"),
        (
            {"image_std": [0.2, 0.0, 0.2]},
            r"image_std must not be 0; got \(0.2, 0.0, 0.2\). Pass do_normalize=False",
        ),
    ]:
        with pytest.raises(ValueError, match=text):
            PerceiverImageProcessor(**arguments)


def test_checkpoints_without_the_file_have_the_published_values(tmp_path):
    PerceiverConfig().to_json_file(tmp_path / "config.json")
    assert PerceiverImageProcessor.from_pretrained(tmp_path) == PerceiverImageProcessor()
    assert PerceiverImageProcessor.from_pretrained(str(tmp_path), size=8).size == {"height": 8, "width": 8}


def test_unusable_checkpoints(tmp_path):
    def refuses(text):
        with pytest.raises(CheckpointError, match=text):
            PerceiverImageProcessor.from_pretrained(tmp_path)

    neither = (
        "must have a preprocessor_config.json, or the config.json of a Perceiver model; got neither. Choose"
    )
    refuses(neither)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    refuses(neither)
    file = tmp_path / "preprocessor_config.json"
    file.write_text('{"size":')
    refuses("preprocessor_config.json must be JSON; got: .*. Is the file complete")
    file.write_text("[1]")
    refuses("preprocessor_config.json must hold a JSON object; got list")
    file.write_text('{"image_processor_type": "CLIPImageProcessor"}')
    refuses(
        "image_processor_type must be PerceiverImageProcessor; got 'CLIPImageProcessor'. Is this the right"
    )
    file.write_text('{"size": {"shortest_edge": 224}}')
    refuses("preprocessor_config.json: size must be a positive integer, .*; got {'shortest_edge': 224}")


def test_a_file_is_written_and_read(tmp_path):
    processor = PerceiverImageProcessor(size=(8, 9), do_convert_rgb=False, image_mean=0.25)
    (file,) = processor.save_pretrained(tmp_path / "new")
    written = json.loads(Path(file).read_text())
    assert written["image_processor_type"] == "PerceiverImageProcessor"
    assert written["size"] == {"height": 8, "width": 9}
    assert written["do_convert_rgb"] is False
    assert PerceiverImageProcessor.from_pretrained(tmp_path / "new") == processor
    assert PerceiverImageProcessor.from_pretrained(file, do_resize=False).do_resize is False
    Path(file).write_text(json.dumps({"do_resize": None, "rescale_factor": None, "size": None}))
    assert PerceiverImageProcessor.from_pretrained(file) == PerceiverImageProcessor()


def test_torch_is_not_imported():
    code = (
        "import sys, numpy as np; from perceiver_core import PerceiverImageProcessor;"
        "PerceiverImageProcessor()(np.zeros((9, 9, 3), np.uint8), return_tensors='np');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
