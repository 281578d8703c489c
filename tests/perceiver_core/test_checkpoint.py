"""Checkpoint folders: what inspect tells, what load refuses."""

import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from perceiver_core import CheckpointError, PerceiverForMultimodalAutoencoding, checkpoint


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_weights(folder, **changes):
    """Saves the weights again with tensors changed, or dropped where None."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.replace(".", "__"): tensor.clone() for name, tensor in tensors.items()} | changes
    save_file(
        {name.replace("__", "."): tensor for name, tensor in tensors.items() if tensor is not None},
        folder / "model.safetensors",
    )


def refuses(text, call, folder):
    with pytest.raises(CheckpointError, match=text) as caught:
        call(folder)
    assert str(folder) in str(caught.value)


def test_round_trip(folder, model, inputs):
    loaded = checkpoint.load(folder)
    assert isinstance(loaded, PerceiverForMultimodalAutoencoding)
    assert not loaded.training
    assert torch.equal(loaded.encode(inputs), model.encode(inputs))
    assert checkpoint.load(folder, dtype=torch.float64).encode(inputs).dtype == torch.float64
    loaded.save_pretrained(folder)  # over the file that its tensors may be mapped from
    assert torch.equal(checkpoint.load(folder).encode(inputs), model.encode(inputs))
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_inspect(folder, config):
    info = checkpoint.inspect(folder)
    assert info.path == folder
    assert info.architecture == "PerceiverForMultimodalAutoencoding"
    assert info.config.num_latents == config.num_latents
    assert info.weights == (folder / "model.safetensors",)
    assert checkpoint.inspect(str(folder)).digest == info.digest
    expected = hashlib.sha256()
    for file in (folder / "config.json", folder / "model.safetensors"):
        expected.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    assert info.digest == expected.hexdigest()
    edit_config(folder, num_blocks=2)
    assert checkpoint.inspect(folder).digest != info.digest


@pytest.mark.parametrize("call", [checkpoint.inspect, checkpoint.load])
def test_incomplete_folders(folder, call):
    refuses("A checkpoint must be a folder; got .*nowhere', which is none", call, folder / "nowhere")
    edit_config(folder, architectures=[])
    refuses(r"architectures must have one name; got \[\]. Write the class", call, folder)
    edit_config(folder, model_type="bert")
    refuses(
        "must be the config of a Perceiver; got: model_type must be 'perceiver'; got 'bert'", call, folder
    )
    (folder / "config.json").write_text("{")
    refuses("must be the config of a Perceiver; got: Expecting property name", call, folder)
    (folder / "config.json").unlink()
    refuses("must have a config.json; got model.safetensors. Give the folder", call, folder)


@pytest.mark.parametrize("call", [checkpoint.inspect, checkpoint.load])
def test_truncated_and_missing_weights(folder, call):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    refuses(
        "model.safetensors must be a whole file of tensors; got: .* Download or copy it again", call, folder
    )
    file.unlink()
    refuses(
        "must have model.safetensors or pytorch_model.bin; got config.json. Copy the weights", call, folder
    )
    (folder / "model.safetensors.index.json").write_text("{}")
    refuses(r"must be an index of weights; got: KeyError\('weight_map'\)", call, folder)
    for shard in ("../config.json", "model-1.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
        refuses(f"names files of its own folder; got {re.escape(shard)}, not there", call, folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"\x80\x02."])
def test_damaged_pickles(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    refuses("pytorch_model.bin must be a whole file of tensors; got: ", checkpoint.load, folder)


def test_pickles_of_something_else(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"step": 3}, folder / "pytorch_model.bin")
    refuses(
        "must be a whole file of tensors; got: something other than a dict of tensors",
        checkpoint.load,
        folder,
    )


def test_wrong_tensors(folder):
    latents = "perceiver__embeddings__latents"
    edit_weights(folder, **{latents: None, "a": torch.zeros(1), "b": torch.zeros(1)})
    refuses(
        "must be the 87 tensors that config.json describes; got 1 missing: perceiver.embeddings.latents; "
        "2 unexpected: a, b. Check that config.json belongs",
        checkpoint.load,
        folder,
    )
    edit_weights(folder, **{latents: torch.zeros(7, 16), "a": None, "b": None})
    refuses(
        r"got 1 of the wrong shape: perceiver.embeddings.latents \(7, 16\) instead of \(6, 16\)",
        checkpoint.load,
        folder,
    )
    edit_config(folder, num_self_attends_per_block=9)
    refuses(
        r"got 112 missing: perceiver\.\S+, perceiver\.\S+, perceiver\.\S+ and 109 more",
        checkpoint.load,
        folder,
    )


def test_impossible_config(folder):
    edit_config(folder, num_self_attention_heads=3)
    refuses(
        "must describe a model; got: qk_channels and v_channels must be multiples", checkpoint.load, folder
    )


def test_wrong_architecture(folder, monkeypatch):
    edit_config(folder, architectures=["BertModel"])
    assert checkpoint.inspect(folder).architecture == "BertModel"
    refuses(
        r"architectures must name one of \['PerceiverForImage.*\]; got 'BertModel'",
        checkpoint.load,
        folder,
    )
    edit_config(folder, architectures=["PerceiverForMultimodalAutoencoding"])

    class Another(PerceiverForMultimodalAutoencoding):
        pass

    refuses(
        "must be a checkpoint of Another; got PerceiverForMultimodalAutoencoding",
        Another.from_pretrained,
        folder,
    )
