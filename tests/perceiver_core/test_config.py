"""PerceiverConfig: labels, JSON, refusals, and what importing it costs."""

import json
import subprocess
import sys

import pytest

from perceiver_core import CheckpointError, PerceiverConfig
from perceiver_core.config import PUBLISHED, multimodal_perceiver


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
    assert config.problem_type is None
    assert config.extra == {"a_key_of_the_future": {"x": [1]}}
    config.to_json_file(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert {name: again[name] for name in written} == written
    assert PerceiverConfig.from_json_file(tmp_path / "again.json") == config


def test_json_without_labels(tmp_path):
    (tmp_path / "config.json").write_text('{"num_labels": 3, "id2label": null}')
    config = PerceiverConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_reference_is_written_where_it_is_not_upstreams(tmp_path):
    assert "reference" not in PerceiverConfig().to_dict()
    PerceiverConfig(reference="deepmind").save_pretrained(tmp_path / "new")
    assert json.loads((tmp_path / "new/config.json").read_text())["reference"] == "deepmind"
    config = PerceiverConfig.from_pretrained(tmp_path / "new")
    assert config.reference == "deepmind"
    assert config.replaced(reference="hf").reference == "hf"


def test_replaced():
    config = PerceiverConfig(id2label={0: "cat", 1: "dog"}, num_latents=7, extra={"kept": 1})
    assert config.replaced() == config
    assert config.replaced(num_labels=2).id2label == {0: "cat", 1: "dog"}
    five = config.replaced(num_labels=5, problem_type="regression", output_attentions=True, new=[2])
    assert five.label2id == {f"LABEL_{index}": index for index in range(5)}
    assert five.id2label[4] == "LABEL_4"
    assert (five.num_labels, five.num_latents, five.problem_type) == (5, 7, "regression")
    assert five.output_attentions
    assert five.extra == {"kept": 1, "new": [2]}
    named = config.replaced(id2label={0: "a", 1: "b", 2: "c"})
    assert (named.num_labels, named.label2id) == (3, {"a": 0, "b": 1, "c": 2})
    assert config.replaced(id2label={0: "a"}, label2id={"A": 0}).label2id == {"A": 0}
    with pytest.raises(ValueError, match="num_labels is 4 but id2label has 1 entries"):
        config.replaced(num_labels=4, id2label={0: "a"})


def test_from_pretrained(tmp_path):
    PerceiverConfig(num_latents=9).save_pretrained(tmp_path / "a/b")
    config = PerceiverConfig.from_pretrained(tmp_path / "a/b", num_labels=4)
    assert (config.num_latents, config.num_labels) == (9, 4)
    with pytest.raises(CheckpointError, match=r"must have a config.json; got b\. Give the folder that"):
        PerceiverConfig.from_pretrained(tmp_path / "a")


def test_the_six_published():
    assert list(PUBLISHED) == [
        "deepmind/language-perceiver",
        "deepmind/vision-perceiver-learned",
        "deepmind/vision-perceiver-fourier",
        "deepmind/vision-perceiver-conv",
        "deepmind/optical-flow-perceiver",
        "deepmind/multimodal-perceiver",
    ]
    assert [len(one.config.id2label) for one in PUBLISHED.values()] == [2, 1000, 1000, 1000, 2, 700]
    assert PUBLISHED["deepmind/vision-perceiver-learned"].config.image_size == 224
    assert PUBLISHED["deepmind/multimodal-perceiver"].architecture == "PerceiverForMultimodalAutoencoding"
    with pytest.raises(TypeError):
        PUBLISHED["mine"] = PUBLISHED["deepmind/language-perceiver"]


def test_published_sizes():
    config = multimodal_perceiver()
    assert (config.num_latents, config.d_latents, config.d_model, config.num_labels) == (784, 512, 704, 700)
    assert (config.num_audio_samples, config.num_audio_patches) == (30720, 1920)


def test_refusals():
    with pytest.raises(ValueError, match="cross_attention_shape_for_attention must be 'q' or 'kv'; got 'v'"):
        PerceiverConfig(cross_attention_shape_for_attention="v")
    with pytest.raises(ValueError, match=r"output_shape must have 4 numbers .*; got \(1, 2, 3\)"):
        PerceiverConfig(output_shape=(1, 2, 3))
    with pytest.raises(ValueError, match="reference must be 'hf' or 'deepmind'; got 'jax'"):
        PerceiverConfig(reference="jax")
    with pytest.raises(
        ValueError, match=r"problem_type must be one of None, regression, .*; got 'classification'"
    ):
        PerceiverConfig(problem_type="classification")
    with pytest.raises(ValueError, match="chunk_size_feed_forward must be 0 or more; got -1"):
        PerceiverConfig(chunk_size_feed_forward=-1)
    with pytest.raises(ValueError, match="model_type must be 'perceiver'; got 'bert'"):
        PerceiverConfig.from_dict({"model_type": "bert"})


@pytest.mark.parametrize(
    "statement",
    [
        "import perceiver_core",
        "from perceiver_core import PerceiverConfig; PerceiverConfig()",
        "from perceiver_core import checkpoint; checkpoint.inspect",
        "from perceiver_core.config import PUBLISHED; PUBLISHED['deepmind/language-perceiver'].config",
        "from perceiver_core import PerceiverConfig; PerceiverConfig.from_pretrained('demo')",
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
