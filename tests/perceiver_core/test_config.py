"""PerceiverConfig: labels, JSON, refusals, and what importing it costs."""

import json
import subprocess
import sys

import pytest

from perceiver_core import PerceiverConfig
from perceiver_core.config import multimodal_perceiver


def test_labels():
    assert PerceiverConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert PerceiverConfig(num_labels=3).label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert PerceiverConfig(id2label={"0": "cat"}).id2label == {0: "cat"}
    assert PerceiverConfig(id2label={0: "a", 1: "b", 2: "c"}).num_labels == 3
    with pytest.raises(ValueError, match="num_labels is 4 but id2label has 1 entries; give id2label alone"):
        PerceiverConfig(num_labels=4, id2label={0: "cat"})


def test_json_loses_nothing(tmp_path):
    written = {
        "model_type": "perceiver",
        "num_latents": 7,
        "id2label": {"0": "cat", "1": "dog"},
        "label2id": {"cat": 0, "dog": 1},
        "output_shape": [1, 2, 3, 4],
        "image_size": [6, 8],
        "qk_channels": None,
        "architectures": ["PerceiverForMultimodalAutoencoding"],
        "_label_trainable_num_channels": 9,
        "problem_type": None,
        "a_key_of_the_future": {"x": [1]},
    }
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = PerceiverConfig.from_json_file(tmp_path / "config.json")
    assert config.output_shape == (1, 2, 3, 4)
    assert config.num_labels == 2
    assert config.extra == {"problem_type": None, "a_key_of_the_future": {"x": [1]}}
    config.to_json_file(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert {name: again[name] for name in written} == written
    assert PerceiverConfig.from_json_file(tmp_path / "again.json") == config


def test_published_sizes():
    config = multimodal_perceiver()
    assert (config.num_latents, config.d_latents, config.d_model, config.num_labels) == (784, 512, 704, 700)
    assert (config.num_audio_samples, config.num_audio_patches) == (30720, 1920)


def test_refusals():
    with pytest.raises(ValueError, match="cross_attention_shape_for_attention must be 'q' or 'kv'; got 'v'"):
        PerceiverConfig(cross_attention_shape_for_attention="v")
    with pytest.raises(ValueError, match=r"output_shape must have 4 numbers .*; got \(1, 2, 3\)"):
        PerceiverConfig(output_shape=(1, 2, 3))
    with pytest.raises(ValueError, match="model_type must be 'perceiver'; got 'bert'"):
        PerceiverConfig.from_dict({"model_type": "bert"})


@pytest.mark.parametrize(
    "statement",
    [
        "import perceiver_core",
        "from perceiver_core import PerceiverConfig; PerceiverConfig()",
        "from perceiver_core import checkpoint; checkpoint.inspect",
    ],
)
def test_torch_is_not_imported(statement):
    code = (
        f"import sys; {statement}; assert not {{'torch', 'numpy', 'transformers', 'ray'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_package_names():
    import perceiver_core

    assert "PerceiverForMultimodalAutoencoding" in dir(perceiver_core)
    with pytest.raises(
        AttributeError, match="module 'perceiver_core' has no attribute 'PerceiverForNothing'"
    ):
        _ = perceiver_core.PerceiverForNothing
