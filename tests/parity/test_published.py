"""The six published configurations: names, sizes and, once each at full size, every number."""

import pytest
import torch
import transformers
from transformers.models.perceiver import modeling_perceiver as hf

import perceiver_core
from perceiver_core.config import PUBLISHED
from perceiver_core.output_points import published_chunks

EXACT = 1e-10
TENSORS = {  # in a state dict; the conv model's 142 hold 5 of its batch norm
    "deepmind/language-perceiver": 457,
    "deepmind/vision-perceiver-learned": 141,
    "deepmind/vision-perceiver-fourier": 136,
    "deepmind/vision-perceiver-conv": 142,
    "deepmind/optical-flow-perceiver": 425,
    "deepmind/multimodal-perceiver": 183,
}


def text():
    ids = torch.randint(6, 262, (1, 2048), generator=torch.Generator().manual_seed(0))
    ids[0, 1800:] = 0
    return {"inputs": ids, "attention_mask": ids != 0}


def image():
    return {"inputs": torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).double()}


def frame_pair():
    return {"inputs": torch.randn(1, 2, 27, 368, 496, generator=torch.Generator().manual_seed(0)).double()}


INPUTS = {
    "deepmind/language-perceiver": text,
    "deepmind/vision-perceiver-learned": image,
    "deepmind/vision-perceiver-fourier": image,
    "deepmind/vision-perceiver-conv": image,
    "deepmind/optical-flow-perceiver": frame_pair,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_sizes(name):
    published = PUBLISHED[name]
    with torch.device("meta"):
        ours = getattr(perceiver_core, published.architecture)(published.config)
        theirs = getattr(hf, published.architecture)(
            transformers.PerceiverConfig(**published.config.to_dict())
        )
    expected = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == expected
    assert list(ours.state_dict()) == list(expected)
    assert len(expected) == TENSORS[name]
    assert ours.num_parameters() == theirs.num_parameters() == published.parameters


@pytest.mark.published
@pytest.mark.timeout(900)  # flow: 80 s, most of it transformers'
@pytest.mark.parametrize("name", INPUTS)
def test_every_number(oracle, name, one_thread):
    torch.set_num_threads(one_thread)  # all of them
    published = PUBLISHED[name]
    theirs, ours = oracle.pair(published.config.to_dict(), head=published.architecture)
    inputs = INPUTS[name]()
    inputs["output_hidden_states"] = True
    with torch.no_grad():
        got, expected = ours(**inputs), theirs(**inputs)
    assert oracle.error(got.hidden_states[-1], expected.hidden_states[-1]) <= EXACT
    assert oracle.error(got.logits, expected.logits) <= EXACT


@pytest.mark.published
def test_every_number_of_the_multimodal_model(oracle, one_thread):
    torch.set_num_threads(one_thread)
    sizes = PUBLISHED["deepmind/multimodal-perceiver"].config.to_dict()
    theirs, ours = oracle.pair(sizes)
    inputs = oracle.inputs({"num_labels": 700}, image=(16, 224, 224), samples=30720)
    chunk = list(published_chunks(ours.config))[77]
    points = {"image": chunk.image, "audio": chunk.audio, "label": None}
    with torch.no_grad():
        expected = theirs.perceiver(inputs, subsampled_output_points=points)
        latents = ours.encode(inputs)
        got = ours.decode(latents, chunk)
    assert oracle.error(latents, expected.last_hidden_state) <= EXACT
    shapes = {name: tuple(tensor.shape) for name, tensor in got.items()}
    assert shapes == {"audio": (2, 240), "image": (2, 6272, 3), "label": (2, 700)}
    assert oracle.worst(got, {name: expected.logits[name] for name in got}) <= EXACT


@pytest.mark.published
@pytest.mark.parametrize("name", ["deepmind/language-perceiver", "deepmind/vision-perceiver-conv"])
def test_float32(oracle, name, one_thread):
    torch.set_num_threads(one_thread)
    published = PUBLISHED[name]
    theirs, ours = oracle.pair(published.config.to_dict(), head=published.architecture)
    inputs = INPUTS[name]()
    if inputs["inputs"].is_floating_point():
        inputs["inputs"] = inputs["inputs"].float()
    with torch.no_grad():
        got, expected = ours.float()(**inputs).logits, theirs.float()(**inputs).logits
    assert oracle.error(got, expected) <= 1e-5
