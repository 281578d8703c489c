"""The parts alone equal transformers', also in uses that the multimodal head does not make of them."""

import pytest
import torch
import transformers
from transformers.models.perceiver import modeling_perceiver as hf

from perceiver_core import (
    PerceiverConfig,
    PerceiverModel,
    decoders,
    image_preprocessor,
    positions,
    preprocessors,
)

EXACT = 1e-10


@pytest.mark.parametrize(
    ("index_dims", "options"),
    [
        ((1920,), {"num_bands": 192, "max_resolution": (30720,)}),
        ((16, 56, 56), {"num_bands": 32, "max_resolution": (16, 56, 56)}),
        ((5, 1, 7), {"num_bands": 3, "max_resolution": (16, 9, 11)}),
        ((7, 4), {"num_bands": 5, "max_resolution": (8, 9), "concat_pos": False}),
        ((7, 4), {"num_bands": 5, "max_resolution": (8, 9), "sine_only": True}),
    ],
)
def test_fourier_features_are_bit_exact(index_dims, options):
    theirs = hf.PerceiverFourierPositionEncoding(**options)
    ours = positions.PerceiverFourierPositionEncoding(**options)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        expected = theirs(index_dims, batch_size=1, device=torch.device("cpu"), dtype=dtype)
        expected = expected.reshape(-1, ours.output_size())  # upstream has no batch if concat_pos is False
        assert torch.equal(ours.of_inputs(index_dims, torch.device("cpu")).to(dtype), expected)
    assert ours.output_size() == theirs.output_size()


@pytest.mark.parametrize("index_dims", [(16, 224, 224), (1920,)])
def test_query_features_are_bit_exact(oracle, index_dims):
    options = {"num_bands": 64, "max_resolution": (30720,) if len(index_dims) == 1 else (16, 56, 56)}
    arguments = {
        "output_num_channels": 4,
        "position_encoding_type": "fourier",
        "output_index_dims": index_dims,
        "position_encoding_only": True,
        "fourier_position_encoding_kwargs": options,
    }
    theirs = hf.PerceiverBasicDecoder(transformers.PerceiverConfig(), **arguments)
    ours = decoders.PerceiverBasicDecoder(PerceiverConfig(), **arguments)
    last = torch.tensor(index_dims).prod().item() - 1
    indices = torch.cat([torch.tensor([0, last]), torch.randint(0, last, (5000,))])
    expected = theirs.decoder_query(torch.zeros(1, 1, 1), subsampled_points=indices)[0]
    sample = torch.zeros(1, 1, 1)
    for points in (indices, indices.int()):
        assert torch.equal(ours.decoder_query(sample, subsampled_points=points)[0], expected)
    if len(index_dims) == 1:
        arguments["output_index_dims"] = index_dims[0]
        flat = decoders.PerceiverBasicDecoder(PerceiverConfig(), **arguments)
        assert torch.equal(flat.decoder_query(sample, subsampled_points=indices)[0], expected)


def test_image_patches(oracle):
    options = {"fourier_position_encoding_kwargs": {"num_bands": 3, "max_resolution": (2, 4, 4)}}
    arguments = {"prep_type": "patches", "spatial_downsample": 2, "temporal_downsample": 2, **options}
    theirs = hf.PerceiverImagePreprocessor(transformers.PerceiverConfig(), **arguments)
    ours = image_preprocessor.PerceiverImagePreprocessor(PerceiverConfig(), **arguments)
    video = torch.randn(2, 4, 3, 6, 10)
    tokens = ours(video).inputs
    assert torch.equal(tokens, theirs(video)[0])
    assert tokens.shape == (2, 2 * 3 * 5, ours.num_channels)


def test_trainable_positions(oracle):
    options = {"trainable_position_encoding_kwargs": {"index_dims": 6, "num_channels": 9}}
    arguments = {"samples_per_patch": 7, "position_encoding_type": "trainable", **options}
    theirs = hf.PerceiverAudioPreprocessor(transformers.PerceiverConfig(), **arguments)
    ours = preprocessors.PerceiverAudioPreprocessor(PerceiverConfig(), **arguments)
    ours.load_state_dict(theirs.state_dict())
    sound = torch.randn(2, 42, 1)
    assert torch.equal(ours(sound)[0], theirs(sound)[0])
    assert ours.num_channels == theirs.num_channels == 16


def decoder_pair(oracle, name, **arguments):
    sizes = {"d_latents": 16, "num_labels": 5}
    theirs = getattr(hf, name)(transformers.PerceiverConfig(**sizes), **arguments).double().eval()
    oracle.randomise(theirs)
    ours = getattr(decoders, name)(PerceiverConfig(**sizes), **arguments).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


LATENTS = torch.randn(2, 6, 16, dtype=torch.float64)


def test_classification_decoder(oracle):
    theirs, ours = decoder_pair(
        oracle,
        "PerceiverClassificationDecoder",
        num_channels=12,
        num_heads=4,
        qk_channels=8,
        v_channels=20,
        widening_factor=2,
        use_query_residual=True,
        trainable_position_encoding_kwargs={"num_channels": 12, "index_dims": 1},
    )
    query = theirs.decoder_query(LATENTS)
    with torch.no_grad():
        expected = theirs(query, LATENTS, output_attentions=True)
        got = ours(ours.decoder_query(LATENTS), LATENTS, output_attentions=True)
    assert oracle.error(got.logits, expected.logits) <= EXACT
    assert oracle.error(got.cross_attentions[0], expected.cross_attentions[0]) <= EXACT


@pytest.mark.parametrize("final_project", [True, False])
def test_basic_decoder(oracle, final_project):
    theirs, ours = decoder_pair(
        oracle,
        "PerceiverBasicDecoder",
        output_num_channels=7,
        output_index_dims=(3, 4),
        num_channels=9,
        final_project=final_project,
        trainable_position_encoding_kwargs={"num_channels": 9, "index_dims": (3, 4)},
    )
    with torch.no_grad():
        expected = theirs(theirs.decoder_query(LATENTS), LATENTS).logits
        got = ours(ours.decoder_query(LATENTS), LATENTS).logits
    assert oracle.error(got, expected) <= EXACT


def test_video_decoder(oracle):
    theirs, ours = decoder_pair(
        oracle,
        "PerceiverBasicVideoAutoencodingDecoder",
        output_shape=[1, 2, 3, 4],
        output_num_channels=7,
        num_channels=9,
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs={"num_bands": 1, "max_resolution": (2, 3, 4)},
    )
    query = ours.decoder_query(LATENTS[:1])
    with torch.no_grad():
        expected = theirs(query, LATENTS[:1]).logits  # upstream's fails for more than one sample
        got = ours(query, LATENTS).logits
    assert got.shape == (2, 2, 3, 4, 7)
    assert oracle.error(got[:1], expected) <= EXACT


def test_model_without_preprocessor_and_decoder(oracle):
    sizes = {**oracle.tiny(), "d_model": 24, "attention_probs_dropout_prob": 0.5}
    theirs = transformers.PerceiverModel(transformers.PerceiverConfig(**sizes)).double().eval()
    oracle.randomise(theirs)
    ours = PerceiverModel(PerceiverConfig(**sizes)).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    tokens = torch.randn(2, 10, 24, dtype=torch.float64)
    with torch.no_grad():
        expected, got = theirs(tokens), ours(tokens)
        assert oracle.error(got.last_hidden_state, expected.last_hidden_state) <= EXACT
        assert got.logits is None
        assert len(ours(tokens, return_dict=False)) == len(theirs(tokens, return_dict=False)) == 1

        # dropout falls on attention probabilities, in train mode only
        evaluated = ours(tokens, output_attentions=True).cross_attentions[0]
        trained = ours.train()(tokens, output_attentions=True).cross_attentions[0]
        assert torch.equal(trained[trained != 0], 2 * evaluated[trained != 0])
        assert 0.2 < (trained == 0).double().mean() < 0.8
        assert not torch.equal(ours.encode(tokens), ours.encode(tokens))
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, tokens, 24\); got \(2, 10, 5\)"):
        ours.encode(tokens[..., :5])
    with pytest.raises(ValueError, match=r"decode\(\) needs a decoder; this model was built without one"):
        ours.decode(got.last_hidden_state, None)
