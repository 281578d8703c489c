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
