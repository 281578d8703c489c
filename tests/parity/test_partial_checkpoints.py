"""A checkpoint opened as another class, as transformers does it."""

import warnings

import pytest
import torch
import transformers

from perceiver_core import PerceiverConfig, checkpoint
from perceiver_core.config import PUBLISHED
from perceiver_core.heads import ARCHITECTURES


def test_a_checkpoint_knows_its_parameters(tmp_path):
    """The convolutional one, whose BatchNorm has buffers beside its parameters."""
    published = PUBLISHED["deepmind/vision-perceiver-conv"]
    config = published.config.replaced(num_self_attends_per_block=1, d_latents=64, num_latents=4)
    model = ARCHITECTURES[published.architecture](config)
    checkpoint.save(model, tmp_path)
    info = checkpoint.inspect(tmp_path)
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    loaded = checkpoint.load(tmp_path, dtype="float64").state_dict()
    assert {str(tensor.dtype) for tensor in loaded.values()} == {"torch.float64", "torch.int64"}


SMALL = {
    "num_latents": 6,
    "d_latents": 16,
    "d_model": 16,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "max_position_embeddings": 9,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize("asked", ["PerceiverForSequenceClassification", "PerceiverModel"])
def test_another_class(asked, tmp_path):
    """The same tensors are fresh as upstream's, and the others are the checkpoint's."""
    source = ARCHITECTURES["PerceiverForMaskedLM"](PerceiverConfig(**SMALL))
    checkpoint.save(source, tmp_path)
    changes = {"num_labels": 5, "problem_type": "regression", "output_attentions": True}
    with pytest.warns(UserWarning, match=f"as a {asked}: ") as caught:
        ours = checkpoint.load(tmp_path, architecture=ARCHITECTURES[asked], changes=changes)
    theirs, report = getattr(transformers, asked).from_pretrained(
        tmp_path, output_loading_info=True, **changes
    )
    text = str(caught[0].message)
    assert (f"{len(report['missing_keys'])} tensors are freshly initialised" in text) == (
        asked != "PerceiverModel"
    )
    assert all(name in text for name in report["missing_keys"])
    assert f"{len(report['unexpected_keys'])} of the checkpoint are left out" in text
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert state[name].shape == tensor.shape
        assert name in report["missing_keys"] or torch.equal(state[name], tensor)
    assert (ours.config.num_labels, ours.config.problem_type) == (5, "regression")
    assert ours.config.label2id == theirs.config.label2id
    assert ours.config.output_attentions


def test_other_labels(tmp_path):
    sizes = {**SMALL, "d_model": 261, "num_labels": 7}
    checkpoint.save(
        ARCHITECTURES["PerceiverForImageClassificationFourier"](PerceiverConfig(**sizes)), tmp_path
    )
    with pytest.warns(UserWarning, match="2 tensors are freshly initialised"):
        ours = checkpoint.load(tmp_path, changes={"num_labels": 3}, ignore_mismatched_sizes=True)
    theirs, report = transformers.PerceiverForImageClassificationFourier.from_pretrained(
        tmp_path, num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    fresh = {name for name, *_ in report["mismatched_keys"]}
    assert len(fresh) == 2
    for name, tensor in theirs.state_dict().items():
        assert ours.state_dict()[name].shape == tensor.shape
        assert name in fresh or torch.equal(ours.state_dict()[name], tensor)


def test_nothing_is_said_of_a_whole_checkpoint(tmp_path):
    checkpoint.save(ARCHITECTURES["PerceiverForMaskedLM"](PerceiverConfig(**SMALL)), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint.load(tmp_path, architecture=ARCHITECTURES["PerceiverForMaskedLM"])


def test_another_encoder_is_refused(tmp_path):
    config = PerceiverConfig(**{**SMALL, "d_model": 264})
    checkpoint.save(ARCHITECTURES["PerceiverForImageClassificationFourier"](config), tmp_path)
    with pytest.raises(
        checkpoint.CheckpointError, match=r"PerceiverForMaskedLM .* must have its latents.*; got 2 missing"
    ):
        checkpoint.load(tmp_path, architecture=ARCHITECTURES["PerceiverForMaskedLM"])
