"""Checkpoint folders: what inspect tells, what load refuses."""

import hashlib
import json
import os
import re
import stat
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from perceiver_core import (
    CheckpointError,
    PerceiverForMultimodalAutoencoding,
    PerceiverModel,
    checkpoint,
    heads,
)


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


def to_bin(folder, **options):
    """The same weights as a pickle."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", **options)


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
    tensors = load_file(folder / "model.safetensors").values()
    assert (info.tensors, info.dtypes) == (len(tensors), ("float32",))
    assert info.parameters == sum(tensor.numel() for tensor in tensors)
    assert info.bytes == (folder / "model.safetensors").stat().st_size
    edit_config(folder, num_blocks=2)
    assert checkpoint.inspect(folder).digest != info.digest


def test_inspecting_a_pickle_reads_no_tensor(folder):
    to_bin(folder)
    info = checkpoint.inspect(folder)
    assert (info.tensors, info.parameters, info.dtypes) == (None, None, None)
    assert info.bytes == (folder / "pytorch_model.bin").stat().st_size


def test_saved_files_have_the_umasks_mode(folder, model):
    old = os.umask(0o027)
    try:
        checkpoint.save(model, folder)
        checkpoint.save(model, folder / "new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o640
    assert stat.S_IMODE((folder / "new/config.json").stat().st_mode) == 0o640


def test_config_can_be_changed(folder, model):
    loaded = checkpoint.load(folder, reference="deepmind", changes={"output_attentions": True, "mine": 1})
    assert loaded.config == model.config.replaced(
        reference="deepmind",
        output_attentions=True,
        mine=1,
        architectures=("PerceiverForMultimodalAutoencoding",),
        dtype="float32",
    )
    assert checkpoint.load(folder).config.reference == "hf"
    with pytest.raises(ValueError, match="reference must be 'hf' or 'deepmind'; got 'jax'"):
        checkpoint.load(folder, reference="jax")


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_dtypes(folder, dtype):
    loaded = checkpoint.load(folder, dtype=dtype)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [None, "auto"])
def test_the_files_dtype_is_kept(folder, model, dtype):
    model.half().save_pretrained(folder)
    loaded = checkpoint.load(folder, dtype=dtype)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float16}
    assert checkpoint.inspect(folder).dtypes == ("float16",)


@pytest.mark.parametrize("dtype", ["int64", "float33", torch.int8, 32])
def test_impossible_dtypes(folder, dtype):
    with pytest.raises(
        ValueError, match=rf'dtype must be None, "auto" or a floating-point .*; got {dtype!r}'
    ):
        checkpoint.load(folder, dtype=dtype)


@pytest.mark.parametrize("call", [checkpoint.inspect, checkpoint.load])
def test_incomplete_folders(folder, call):
    refuses("A checkpoint must be a folder, .*; got .*nowhere', which is none", call, folder / "nowhere")
    refuses("got .*config.json', which is a file. Check the path", call, folder / "config.json")
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
    for shard, must in (
        ("../a.safetensors", "name files of its own folder"),
        ("1.safetensors", "name files that"),
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
        refuses(f"must {must}.*; got {re.escape(shard)}", call, folder)


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


class Malice:
    """Unpickled without care, it makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickles_code_is_not_run(folder, tmp_path, zipped):
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    torch.save({"x": Malice(tmp_path / "ran")}, file, _use_new_zipfile_serialization=zipped)
    refuses(
        r"must hold tensors and nothing else; got a pickle that asks for \S*getattr, "
        "which was not run. Don't trust where it is from; get the weights as safetensors.$",
        checkpoint.load,
        folder,
    )
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)  # it would have
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_either_format(folder, model, inputs, zipped):
    to_bin(folder, _use_new_zipfile_serialization=zipped)
    assert torch.equal(checkpoint.load(folder).encode(inputs), model.encode(inputs))


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
        r"architectures must name one of \[.*'PerceiverForMultimodalAutoencoding'.*\]; got 'BertModel'",
        checkpoint.load,
        folder,
    )


def test_options_of_from_pretrained(folder):
    head = PerceiverForMultimodalAutoencoding
    model = head.from_pretrained(folder, torch_dtype="float64", reference="deepmind", output_attentions=True)
    assert (model.dtype, model.config.reference) == (torch.float64, "deepmind")
    assert model.config.output_attentions
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())  # load's have none
    with pytest.raises(
        TypeError, match=r"and the config's fields; got device_map, revision\. Leave out what is"
    ):
        head.from_pretrained(folder, revision="main", device_map="auto")


def fresh(call):
    """What call returns, and the text of its only warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    assert [warning.category for warning in caught] == [UserWarning]
    return result, str(caught[0].message)


def test_other_sizes_are_initialised_on_request(folder, model):
    changes = {"num_labels": 7}
    with pytest.raises(
        CheckpointError, match=r"got 3 of the wrong shape: perceiver\.\S+ \(1, 391\) instead of"
    ):
        checkpoint.load(folder, changes=changes)
    loaded, text = fresh(
        lambda: checkpoint.load(folder, changes=changes, ignore_mismatched_sizes=True, dtype="float64")
    )
    before, after = model.state_dict(), loaded.state_dict()
    other = {name for name in before if before[name].shape != after[name].shape}
    assert other
    for name in after:
        assert (name in text) == (name in other)
        assert after[name].dtype == torch.float64
        assert name in other or torch.equal(after[name], before[name].double())
    assert f"{len(other)} tensors are freshly initialised, so train it before you use it" in text
    weight = "perceiver.output_postprocessor.modalities.label.classifier.weight"
    assert after[weight].std().item() == pytest.approx(model.config.initializer_range, rel=0.35)
    assert not after[weight.replace("weight", "bias")].any()


class Latents(nn.Module):
    """Another head on the same encoder: a norm, a projection and a table of its own."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        whole = PerceiverForMultimodalAutoencoding(config).perceiver
        self.perceiver = PerceiverModel(config, input_preprocessor=whole.input_preprocessor)
        self.norm = nn.BatchNorm2d(config.d_latents)
        self.layer = nn.LayerNorm(config.d_latents)
        self.project = nn.Linear(config.d_latents, config.num_labels)
        self.tables = nn.ParameterDict({"a": nn.Parameter(torch.zeros(40, 40))})

    def forward(self, inputs):
        return self.project(self.layer(self.perceiver.encode(inputs)))


def test_another_head(folder, model, inputs):
    torch.manual_seed(3)
    loaded, text = fresh(lambda: checkpoint.load(folder, architecture=Latents, dtype="bfloat16"))
    assert isinstance(loaded, Latents)
    state, written = loaded.state_dict(), model.state_dict()
    new = {name for name in state if name not in written}
    assert {name.partition(".")[0] for name in new} == {"norm", "layer", "project", "tables"}
    assert all(name in text for name in new)
    assert f"{folder} as a Latents: {len(new)} tensors are freshly initialised, so train it before" in text
    left_out = len(written.keys() - state.keys())
    assert f"; {left_out} of the checkpoint are left out (perceiver.decoder." in text
    assert all(torch.equal(state[name], written[name].bfloat16()) for name in state.keys() - new)
    assert state["norm.num_batches_tracked"].dtype == torch.int64
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.bfloat16}
    for name in ("norm.weight", "norm.running_var", "layer.weight"):
        assert (state[name] == 1).all()
    for name in ("norm.bias", "norm.running_mean", "norm.num_batches_tracked", "layer.bias", "project.bias"):
        assert not state[name].any()
    assert state["tables.a"].float().std().item() == pytest.approx(model.config.initializer_range, rel=0.1)
    assert (
        loaded({name: tensor.bfloat16() for name, tensor in inputs.items()}).isfinite().all()
    )  # nothing is left on the meta device


def test_fresh_tensors_have_the_files_dtype(folder, model):
    model.half().save_pretrained(folder)
    loaded, _ = fresh(lambda: checkpoint.load(folder, architecture=Latents))
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float16}


def test_another_encoder_is_refused(folder, model):
    with pytest.raises(
        CheckpointError,
        match=r"a Latents out of a checkpoint of PerceiverForMultimodalAutoencoding must have its latents, encoder and "
        r"input preprocessor; got 1 of the wrong shape: perceiver.embeddings.latents \(6, 16\) instead of \(5, 16\)\. "
        "Choose a checkpoint of Latents",
    ):
        checkpoint.load(
            folder, architecture=Latents, changes={"num_latents": 5}, ignore_mismatched_sizes=True
        )
    with pytest.raises(CheckpointError, match=r"got 16 missing: perceiver\.encoder\.self_attends\.2"):
        checkpoint.load(folder, architecture=Latents, changes={"num_self_attends_per_block": 3})
    with pytest.raises(CheckpointError, match=r"got 16 unexpected: perceiver\.encoder\.self_attends\.1"):
        checkpoint.load(folder, architecture=Latents, changes={"num_self_attends_per_block": 1})
    edit_weights(folder, **{"perceiver__input_preprocessor__mask__label": None})
    with pytest.raises(CheckpointError, match=r"got 1 missing: perceiver\.input_preprocessor\.mask\.label"):
        checkpoint.load(folder, architecture=Latents)


def test_a_bare_model_out_of_a_head_and_back(model, config, tmp_path):
    tokens = model.perceiver.input_preprocessor.num_channels
    config = config.replaced(d_model=tokens)
    PerceiverForMultimodalAutoencoding(config).save_pretrained(tmp_path / "head")
    bare, text = fresh(lambda: checkpoint.load(tmp_path / "head", architecture=PerceiverModel))
    assert "freshly" not in text
    assert "of the checkpoint are left out (decoder." in text
    written = load_file(tmp_path / "head/model.safetensors")
    assert all(
        torch.equal(tensor, written[f"perceiver.{name}"]) for name, tensor in bare.state_dict().items()
    )
    assert bare.encode(torch.randn(1, 4, tokens)).shape == (1, 6, 16)

    checkpoint.save(bare, tmp_path / "bare")
    again = checkpoint.load(tmp_path / "bare")  # named by config.json: strict, and without a warning
    assert type(again) is PerceiverModel

    class Bare(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.perceiver = PerceiverModel(config)

    headed = checkpoint.load(tmp_path / "bare", architecture=Bare)
    assert torch.equal(headed.perceiver.embeddings.latents, bare.embeddings.latents)


def test_the_class_asked_for_is_the_one_that_config_leaves_out(folder):
    edit_config(folder, architectures=None)
    loaded = checkpoint.load(folder, architecture=PerceiverForMultimodalAutoencoding)
    assert isinstance(loaded, PerceiverForMultimodalAutoencoding)
    edit_weights(folder, perceiver__embeddings__latents=None)
    with pytest.raises(
        CheckpointError, match=r"must be the 87 tensors .* got 1 missing: perceiver\.embeddings"
    ):
        checkpoint.load(folder, architecture=PerceiverForMultimodalAutoencoding)


class WithBatchNorm(nn.Module):
    """A head whose buffers matter."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.perceiver = PerceiverModel(config)
        self.norm = nn.BatchNorm2d(config.d_latents)


def test_buffers_of_a_batch_norm(config, tmp_path, monkeypatch):
    monkeypatch.setitem(heads.ARCHITECTURES, "WithBatchNorm", WithBatchNorm)
    model = WithBatchNorm(config)
    model.norm(torch.randn(3, 16, 2, 2))
    checkpoint.save(model, tmp_path)
    loaded = checkpoint.load(tmp_path, dtype=torch.float64).norm
    assert torch.equal(loaded.running_mean, model.norm.running_mean.double())
    assert torch.equal(loaded.running_var, model.norm.running_var.double())
    assert loaded.num_batches_tracked.dtype == torch.int64
    assert loaded.num_batches_tracked.item() == 1
    info = checkpoint.inspect(tmp_path)
    assert info.dtypes == ("float32", "int64")
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert info.tensors == len(model.state_dict())
