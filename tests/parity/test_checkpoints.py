"""Checkpoints travel between transformers and us, both ways, strictly."""

import json
from dataclasses import replace

import pytest
import torch
import transformers

from perceiver_core import PerceiverConfig, PerceiverForMultimodalAutoencoding, checkpoint


def equal_states(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_config_in_json(oracle):
    theirs = transformers.PerceiverConfig(**oracle.tiny())
    ours = PerceiverConfig(**oracle.tiny())
    read = PerceiverConfig.from_dict(json.loads(theirs.to_json_string(use_diff=False)))
    assert replace(read, extra={}) == ours


def test_initial_values_are_upstreams(oracle):
    sizes = oracle.tiny(d_latents=64, num_latents=64, initializer_range=0.1)
    theirs = transformers.PerceiverForMultimodalAutoencoding(
        transformers.PerceiverConfig(**sizes)
    ).state_dict()
    ours = PerceiverForMultimodalAutoencoding(PerceiverConfig(**sizes)).state_dict()
    for name, tensor in ours.items():
        if name.endswith(".bias") or "layernorm" in name:
            assert torch.equal(tensor, theirs[name]), name
        elif tensor.numel() > 500:
            assert tensor.std().item() == pytest.approx(0.1, rel=0.15), name
            assert theirs[name].std().item() == pytest.approx(0.1, rel=0.15), name


@pytest.mark.parametrize("layout", ["one file", "shards", "pickle", "pickled shards"])
def test_theirs_opens_in_ours(oracle, tmp_path, layout):
    theirs, _ = oracle.pair(oracle.tiny())
    theirs.save_pretrained(tmp_path, max_shard_size="100KB" if "shards" in layout else "1GB")
    if "pickle" in layout:
        to_pickle(tmp_path)
    ours = PerceiverForMultimodalAutoencoding.from_pretrained(tmp_path)
    assert equal_states(ours.state_dict(), theirs.state_dict())
    assert not ours.training
    weights = checkpoint.inspect(tmp_path).weights
    assert (len(weights) > 1) == ("shards" in layout)
    assert {file.suffix for file in weights} == {".bin" if "pickle" in layout else ".safetensors"}


def to_pickle(folder):
    """Rewrites safetensors files as the pickles that older versions of transformers wrote."""
    from safetensors.torch import load_file

    for file in folder.glob("*.safetensors"):
        torch.save(load_file(file), folder / pickle_name(file.name))
        file.unlink()
    for index in folder.glob("*.index.json"):
        content = json.loads(index.read_text())
        content["weight_map"] = {name: pickle_name(file) for name, file in content["weight_map"].items()}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))
        index.unlink()


def pickle_name(name):
    return name.replace("model", "pytorch_model").replace(".safetensors", ".bin")


def test_ours_opens_in_theirs(oracle, tmp_path):
    _, ours = oracle.pair(oracle.tiny())
    ours.to(torch.bfloat16).save_pretrained(tmp_path)
    back, report = transformers.PerceiverForMultimodalAutoencoding.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    assert back.dtype == torch.bfloat16
    assert equal_states(back.state_dict(), ours.state_dict())
    assert back.config.num_labels == 5
    assert tuple(back.config.output_shape) == (1, 2, 5, 9)
    assert back.config._label_trainable_num_channels == 70


def test_a_config_makes_the_round_trip(oracle, tmp_path):
    labels = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}, "num_labels": 2}
    sizes = oracle.tiny(**labels, problem_type="regression")
    theirs = transformers.PerceiverForMultimodalAutoencoding(transformers.PerceiverConfig(**sizes))
    theirs.save_pretrained(tmp_path / "theirs")
    PerceiverForMultimodalAutoencoding.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("theirs", "ours"))
    assert {name: after.get(name) for name in before} == before
    assert checkpoint.inspect(tmp_path / "ours").config.id2label == {0: "cat", 1: "dog"}
