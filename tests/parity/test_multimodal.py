"""Our multimodal model equals transformers', every tensor that can be asked for."""

import pytest
import torch

from perceiver_core import OutputPoints
from perceiver_core.output_points import published_chunks

EXACT = 1e-10
POINTS = {"image": torch.tensor([0, 89, 17, 18, 44, 45, 3]), "audio": torch.tensor([5, 0, 3]), "label": None}
CONFIGS = {
    "blocks_and_heads": {},
    "audio_at_its_published_resolution": {
        "num_frames": 16,
        "audio_samples_per_frame": 1920,
        "samples_per_patch": 16,
        "output_shape": (1, 16, 5, 9),
    },
    "queries_shape_the_attention": {
        "cross_attention_shape_for_attention": "q",
        "num_cross_attention_heads": 2,
        "self_attention_widening_factor": 2,
        "cross_attention_widening_factor": 3,
        "use_query_residual": False,
    },
    "keys_shape_the_attention": {"num_cross_attention_heads": 4, "num_labels": 1, "num_blocks": 3},
    "own_channels": {
        "qk_channels": 24,
        "v_channels": 16,
        "num_cross_attention_heads": 4,
        "num_self_attention_heads": 8,
        "num_self_attends_per_block": 1,
    },
    "tanh": {"hidden_act": "gelu_pytorch_tanh", "num_self_attention_heads": 2},
    "label_is_widest": {"num_labels": 420, "_label_trainable_num_channels": 400, "num_blocks": 1},
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def sizes(request, oracle):
    return oracle.tiny(**request.param)


def compare_everything(oracle, theirs, ours, inputs, **arguments):
    """Runs both PerceiverModels and asserts that all of their outputs agree."""
    arguments = {"output_attentions": True, "output_hidden_states": True, **arguments}
    with torch.no_grad():
        expected = theirs.perceiver(inputs, **arguments)
        got = ours.perceiver(inputs, **arguments)
    assert got.logits.keys() == expected.logits.keys()
    pairs = [(got.logits[name], expected.logits[name]) for name in expected.logits]
    pairs.append((got.last_hidden_state, expected.last_hidden_state))
    for field in ("hidden_states", "attentions", "cross_attentions"):
        pairs.extend(zip(got[field], expected[field], strict=True))
    worst = max(oracle.error(*pair) for pair in pairs)
    assert worst <= EXACT
    return got, expected


def test_every_output_equals(oracle, sizes):
    theirs, ours = oracle.pair(sizes)
    samples = 3 * sizes["samples_per_patch"] * 2
    inputs = oracle.inputs(sizes, samples=samples)
    compare_everything(oracle, theirs, ours, inputs, subsampled_output_points=POINTS)
    with torch.no_grad():  # without attention maps another code path computes
        expected = theirs(inputs, subsampled_output_points=POINTS).logits
        got = ours(inputs, subsampled_output_points=POINTS).logits
    assert max(oracle.error(got[name], expected[name]) for name in expected) <= EXACT


def test_rows_of_low_variance(oracle):
    # var 1e-6: LayerNorm's eps of 1e-5 rules the result, and the config's layer_norm_eps of 1e-12 would not do
    theirs, ours = oracle.pair(oracle.tiny())
    with torch.no_grad():
        theirs.perceiver.embeddings.latents *= 1e-3
    ours.load_state_dict(theirs.state_dict())
    compare_everything(oracle, theirs, ours, oracle.inputs(oracle.tiny()), subsampled_output_points=POINTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.long, torch.bool])
def test_attention_mask(oracle, dtype):
    theirs, ours = oracle.pair(oracle.tiny())
    mask = torch.ones(2, 6 + 12 + 1)
    mask[0, 3:9] = 0
    mask[1] = 0  # nothing to attend to: uniform, not NaN
    arguments = {"attention_mask": mask.to(dtype), "subsampled_output_points": POINTS}
    compare_everything(oracle, theirs, ours, oracle.inputs(oracle.tiny()), **arguments)
    with torch.no_grad():
        expected = theirs.perceiver(oracle.inputs(oracle.tiny()), **arguments).last_hidden_state
        got = ours.encode(oracle.inputs(oracle.tiny()), mask.to(dtype))
    assert oracle.error(got, expected) <= EXACT


def test_tuples_have_upstreams_order(oracle):
    theirs, ours = oracle.pair(oracle.tiny())
    for flags in [{}, {"output_attentions": True}, {"output_attentions": True, "output_hidden_states": True}]:
        arguments = {"subsampled_output_points": POINTS, "return_dict": False, **flags}
        inputs = oracle.inputs(oracle.tiny())
        for their_model, our_model in ((theirs, ours), (theirs.perceiver, ours.perceiver)):
            with torch.no_grad():
                expected, got = their_model(inputs, **arguments), our_model(inputs, **arguments)
            assert structure(got) == structure(expected)


def structure(value):
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {name: structure(v) for name, v in value.items()}
    return [structure(v) for v in value]


def test_published_recipe_is_one_encode_and_one_decode(oracle):
    sizes = oracle.tiny(audio_samples_per_frame=448, output_shape=(1, 2, 8, 16))  # 128 patches, 256 pixels
    theirs, ours = oracle.pair(sizes)
    inputs = oracle.inputs(sizes, samples=98)
    pieces = []
    with torch.no_grad():
        for points in published_chunks(ours.config):
            subsampling = {"image": points.image, "audio": points.audio, "label": None}
            pieces.append(theirs(inputs, subsampled_output_points=subsampling).logits)
        latents = ours.encode(inputs)
        got = ours.decode(latents, OutputPoints.all(ours.config))
        whole = ours(inputs).logits
    assert len(pieces) == 128
    expected = {name: torch.cat([piece[name] for piece in pieces], dim=1) for name in ("image", "audio")}
    expected["label"] = pieces[-1]["label"]
    for name, tensor in expected.items():
        assert oracle.error(got[name], tensor) <= EXACT
        assert torch.equal(whole[name], got[name])


def test_float32(oracle):
    theirs, ours = oracle.pair(oracle.tiny())
    theirs, ours = theirs.float(), ours.float()
    inputs = oracle.inputs(oracle.tiny(), dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(inputs, subsampled_output_points=POINTS).logits
        got = ours(inputs, subsampled_output_points=POINTS).logits
    assert max(oracle.error(got[name], expected[name]) for name in expected) <= 1e-5


def test_gradients(oracle):
    sizes = oracle.tiny(attention_probs_dropout_prob=0.0)
    theirs, ours = (model.train() for model in oracle.pair(sizes))
    inputs = oracle.inputs(sizes)
    for model in (theirs, ours):
        logits = model(inputs, subsampled_output_points=POINTS).logits
        sum(
            (tensor * torch.arange(tensor.numel()).view(tensor.shape)).sum() for tensor in logits.values()
        ).backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:  # never used: upstream multiplies these by zero
            assert not expected[name].grad.any()
            assert name.startswith(
                ("perceiver.input_preprocessor.mask", "perceiver.input_preprocessor.padding.label")
            )
        elif name.endswith("self.key.bias"):  # cancels in the softmax: rounding is all there is
            assert parameter.grad.abs().max() < 1e-8 * ours.perceiver.embeddings.latents.grad.abs().max()
        else:
            assert oracle.error(parameter.grad, expected[name].grad) <= EXACT


def test_published_size(oracle, one_thread):
    torch.set_num_threads(one_thread)  # all of them
    sizes = {
        "num_latents": 784,
        "d_latents": 512,
        "d_model": 704,
        "num_self_attends_per_block": 8,
        "num_cross_attention_heads": 1,
        "num_labels": 700,
    }
    theirs, ours = oracle.pair(sizes)
    inputs = oracle.inputs(sizes, image=(16, 224, 224), samples=30720)
    chunk = list(published_chunks(ours.config))[77]
    with torch.no_grad():
        expected = theirs.perceiver(
            inputs, subsampled_output_points={"image": chunk.image, "audio": chunk.audio, "label": None}
        )
        latents = ours.encode(inputs)
        got = ours.decode(latents, chunk)
    assert oracle.error(latents, expected.last_hidden_state) <= EXACT
    assert {name: tuple(tensor.shape) for name, tensor in got.items()} == {
        "audio": (2, 240),
        "image": (2, 6272, 3),
        "label": (2, 700),
    }
    assert max(oracle.error(got[name], expected.logits[name]) for name in got) <= EXACT
