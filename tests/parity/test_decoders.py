"""Every decoder equals transformers', alone and in a model put together from parts."""

import pytest
import torch
import transformers
from transformers.models.perceiver import modeling_perceiver as hf

import perceiver_core
from perceiver_core import PerceiverConfig, PerceiverModel, decoders

EXACT = 1e-10
SIZES = {"d_latents": 16, "num_labels": 5, "num_cross_attention_heads": 1}
LATENTS = torch.randn(2, 6, 16, dtype=torch.float64)
TOKENS = torch.randn(2, 24, 10, dtype=torch.float64)


def table(rows, channels):
    return {"trainable_position_encoding_kwargs": {"num_channels": channels, "index_dims": rows}}


def fourier(*resolution):
    kwargs = {"num_bands": 2, "max_resolution": resolution}
    return {"position_encoding_type": "fourier", "fourier_position_encoding_kwargs": kwargs}


def decoder_pair(oracle, name, **arguments):
    theirs = getattr(hf, name)(transformers.PerceiverConfig(**SIZES), **arguments).double().eval()
    oracle.randomise(theirs)
    ours = getattr(decoders, name)(PerceiverConfig(**SIZES), **arguments).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def test_projection(oracle):
    class Projection(hf.PerceiverProjectionDecoder):  # upstream's cannot be instantiated
        num_query_channels = None

    theirs = Projection(transformers.PerceiverConfig(**SIZES)).double()
    ours = decoders.PerceiverProjectionDecoder(PerceiverConfig(**SIZES)).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    got = ours(ours.decoder_query(TOKENS), LATENTS, output_attentions=True)
    assert oracle.error(got.logits, theirs(None, LATENTS)) <= EXACT
    model = PerceiverModel(PerceiverConfig(**SIZES, d_model=10, num_self_attends_per_block=1), decoder=ours)
    logits = model.double().eval()(TOKENS, output_attentions=True).logits
    assert logits.shape == (2, 5)
    torch.testing.assert_close(model.decode(model.encode(TOKENS), chunk_size=3), logits)


BASIC = {
    "a table": {"output_index_dims": (3, 4), "num_channels": 9, **table((3, 4), 9)},
    "a table by its length": {"num_channels": 9, **table(12, 9)},
    "no projection": {"output_index_dims": 12, "num_channels": 9, "final_project": False, **table(12, 9)},
    "heads and residual": {
        "output_index_dims": 12,
        "num_channels": 12,
        "num_heads": 4,
        "qk_channels": 8,
        "v_channels": 20,
        "widening_factor": 3,
        "use_query_residual": True,
        **table(12, 12),
    },
}


@pytest.mark.parametrize("case", BASIC)
def test_basic(oracle, case):
    theirs, ours = decoder_pair(oracle, "PerceiverBasicDecoder", output_num_channels=7, **BASIC[case])
    query = ours.decoder_query(TOKENS)
    assert torch.equal(query, theirs.decoder_query(TOKENS))
    assert ours.num_query_channels == theirs.num_query_channels
    with torch.no_grad():
        for maps in (False, True):
            expected = theirs(query, LATENTS, output_attentions=maps)
            assert oracle.worst(ours(query, LATENTS, output_attentions=maps), expected) <= EXACT
        mask = torch.zeros(2, 12)  # ignored, as upstream does
        assert torch.equal(ours(query, LATENTS, mask).logits, ours(query, LATENTS).logits)


def test_fourier_queries_at_points(oracle):
    options = {"output_index_dims": (3, 4), "num_channels": 10, **fourier(3, 4)}
    theirs, ours = decoder_pair(oracle, "PerceiverBasicDecoder", output_num_channels=7, **options)
    points = torch.tensor([11, 0, 5, 5])
    query = ours.decoder_query(TOKENS, subsampled_points=points)
    assert torch.equal(query, theirs.decoder_query(TOKENS, subsampled_points=points))
    assert torch.equal(ours.decoder_query(TOKENS)[:, points], query)  # all of them, by the same recipe
    own = torch.stack([points, points.flip(0)])
    assert torch.equal(ours.decoder_query(TOKENS, subsampled_points=own)[1], query[1].flip(0))


def test_table_rows_at_points(oracle):
    _, ours = decoder_pair(oracle, "PerceiverBasicDecoder", output_num_channels=7, **BASIC["a table"])
    points = torch.tensor([11, 0, 5])  # upstream ignores them
    rows = ours.output_position_encodings.position_embeddings[points]
    assert torch.equal(ours.decoder_query(TOKENS, subsampled_points=points), rows.expand(2, -1, -1))


def test_queries_with_inputs(oracle):
    options = {"output_index_dims": 24, "num_channels": 15, "concat_preprocessed_input": True, **table(24, 9)}
    theirs, ours = decoder_pair(oracle, "PerceiverBasicDecoder", output_num_channels=7, **options)
    content = torch.randn(2, 24, 6, dtype=torch.float64)
    query = ours.decoder_query(TOKENS, None, content)
    assert torch.equal(query, theirs.decoder_query(TOKENS, None, content))
    points = torch.tensor([3, 23, 0])
    assert torch.equal(ours.decoder_query(TOKENS, None, content, points), query[:, points])
    with pytest.raises(
        ValueError, match=r"inputs_without_pos \(batch, points, channels\) must be given; got None"
    ):
        ours.decoder_query(TOKENS)


def test_projected_positions(oracle):
    # upstream: Linear(None, ...) fails
    options = {"output_index_dims": 12, "position_encoding_only": True, "project_pos_dim": 5, **fourier(12)}
    ours = decoders.PerceiverBasicDecoder(PerceiverConfig(**SIZES), 7, **options).double()
    features = ours.output_position_encodings.of_outputs(torch.arange(12), (12,)).double()
    assert torch.equal(ours.decoder_query(TOKENS)[0], ours.positions_projection(features))
    assert ours.num_query_channels == 5


def test_classification(oracle):
    options = {"num_channels": 12, "num_heads": 4, "use_query_residual": True, **table(1, 12)}
    theirs, ours = decoder_pair(oracle, "PerceiverClassificationDecoder", **options)
    query = ours.decoder_query(TOKENS)
    assert torch.equal(query, theirs.decoder_query(TOKENS))
    with torch.no_grad():
        expected = theirs(query, LATENTS, output_attentions=True)
        assert oracle.worst(ours(query, LATENTS, output_attentions=True), expected) <= EXACT
    assert ours.num_query_channels == theirs.num_query_channels == 5


@pytest.mark.parametrize("rescale_factor", [100.0, 7.0])
def test_optical_flow(oracle, rescale_factor):
    options = {"num_channels": 10, "rescale_factor": rescale_factor, **fourier(4, 6)}
    arguments = {"output_image_shape": (4, 6), **options}
    theirs, ours = decoder_pair(oracle, "PerceiverOpticalFlowDecoder", **arguments)
    assert torch.equal(ours.decoder_query(TOKENS), theirs.decoder_query(TOKENS))
    with torch.no_grad():
        expected = theirs(TOKENS, LATENTS, output_attentions=True)
        got = ours(TOKENS, LATENTS, output_attentions=True)
    assert got.logits.shape == (2, 4, 6, 2)
    assert oracle.worst(got, expected) <= EXACT


@pytest.mark.parametrize("kind", [list, tuple])
def test_video(oracle, kind):
    options = {"output_num_channels": 7, "num_channels": 15, **fourier(2, 3, 4)}
    theirs, ours = decoder_pair(
        oracle, "PerceiverBasicVideoAutoencodingDecoder", output_shape=[1, 2, 3, 4], **options
    )
    query = ours.decoder_query(LATENTS)
    every = theirs.decoder_query(LATENTS, subsampled_points=torch.arange(24))
    assert torch.equal(query, every)
    ours.output_shape = kind(ours.output_shape)
    with torch.no_grad():
        expected = theirs(query[:1], LATENTS[:1]).logits  # upstream's fails for more than one sample
        got = ours(query, LATENTS).logits
    assert got.shape == (2, 2, 3, 4, 7)
    assert oracle.error(got[:1], expected) <= EXACT


def multimodal(module, config, **more):
    parts = {
        "sound": module.PerceiverBasicDecoder(
            config, output_num_channels=7, output_index_dims=(6,), position_encoding_only=True, **fourier(6)
        ),
        "label": module.PerceiverClassificationDecoder(config, position_encoding_only=True, **table(1, 8)),
    }
    return module.PerceiverMultimodalDecoder(config, parts, None, 7, min_padding_size=3, num_heads=1, **more)


def test_multimodal(oracle):
    theirs = multimodal(hf, transformers.PerceiverConfig(**SIZES)).double().eval()
    ours = multimodal(perceiver_core, PerceiverConfig(**SIZES), subsampled_index_dims={}).double().eval()
    oracle.randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    points = {"sound": torch.tensor([5, 0, 3]), "label": None}
    sizes = {"label": 4, "sound": 20}
    query = theirs.decoder_query(TOKENS, sizes, subsampled_points=points)
    assert torch.equal(ours.decoder_query(TOKENS, sizes, subsampled_points=points), query)
    assert ours.num_query_channels == theirs.num_query_channels == 11
    with torch.no_grad():
        expected = theirs(query, LATENTS, output_attentions=True)
        assert oracle.worst(ours(query, LATENTS, output_attentions=True), expected) <= EXACT
    whole = ours.decoder_query(TOKENS)
    assert whole.shape == (2, 7, 11)
    assert torch.equal(ours.decoder_query(TOKENS, subsampled_points={"sound": points["sound"]}), query[:, 1:])
    with pytest.raises(
        ValueError, match=r"must be of some of the modalities \['label', 'sound'\]; got \['image'\]"
    ):
        ours.decoder_query(TOKENS, subsampled_points={"image": None})


def test_postprocessors(oracle):
    rows = torch.randn(2, 7, 4, dtype=torch.float64)
    built = []
    for module, config in (
        (hf, transformers.PerceiverConfig(num_labels=5, samples_per_patch=3)),
        (perceiver_core, PerceiverConfig(num_labels=5, samples_per_patch=3)),
    ):
        parts = {
            "b": module.PerceiverAudioPostprocessor(config, 4),
            "a": module.PerceiverProjectionPostprocessor(4, 2),
            "c": module.PerceiverClassificationPostprocessor(config, in_channels=4),
        }
        built.append([module.PerceiverMultimodalPostprocessor(parts, d).double() for d in (False, True)])
    (theirs, their_dict), (ours, our_dict) = built
    oracle.randomise(theirs)
    their_dict.load_state_dict(theirs.state_dict())
    for model in (ours, our_dict):
        model.load_state_dict(theirs.state_dict(), strict=True)
    sizes = {"c": 1, "b": 2, "a": 4}
    expected, got = theirs(rows, modality_sizes=sizes), ours(rows, modality_sizes=sizes)
    assert oracle.worst(got, {name: expected[name] for name in got}) <= EXACT
    assert got.keys() == expected.keys()
    given = {"a": rows[:, :4], "b": rows[:, 4:6], "c": rows[:, 6:]}
    assert oracle.worst(our_dict(given), {name: expected[name] for name in given}) <= EXACT
    with pytest.raises(
        ValueError, match="inputs must be a tensor with its modality_sizes; got a tensor and modal"
    ):
        ours(rows)
    with pytest.raises(ValueError, match="inputs must be a dict; got a tensor"):
        our_dict(rows, modality_sizes=sizes)
    with pytest.raises(ValueError, match="postproc_type must be 'patches'; got 'conv'"):
        perceiver_core.PerceiverAudioPostprocessor(PerceiverConfig(), 4, "conv")


def test_a_model_of_parts_with_a_postprocessor(oracle):
    sizes = {**SIZES, "num_latents": 6, "num_self_attends_per_block": 1, "d_model": 10}
    built = []
    for module, config in (
        (hf, transformers.PerceiverConfig(**sizes)),
        (perceiver_core, PerceiverConfig(**sizes)),
    ):
        decoder = module.PerceiverBasicDecoder(config, output_num_channels=7, num_channels=9, **table(12, 9))
        post = module.PerceiverProjectionPostprocessor(7, 4)
        built.append(
            module.PerceiverModel(config, decoder=decoder, output_postprocessor=post).double().eval()
        )
    theirs, ours = built
    oracle.randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        expected, got = (model(TOKENS, output_attentions=True) for model in built)
        assert oracle.worst(got, expected) <= EXACT
        assert oracle.error(ours.decode(ours.encode(TOKENS), chunk_size=5), expected.logits) <= EXACT


def test_queries_that_nobody_makes():
    config = PerceiverConfig(**SIZES)
    none = decoders.PerceiverBasicDecoder(config, 7, position_encoding_type="none", num_channels=9)
    unsized = decoders.PerceiverBasicDecoder(config, 7, **fourier(12))
    for call, message in [
        (
            lambda: none.decoder_query(TOKENS),
            "position_encoding_type 'none' makes no queries; give attend or forward",
        ),
        (lambda: none.num_query_channels, "makes no queries, so they have no channels"),
        (
            lambda: unsized.decoder_query(TOKENS),
            "output_index_dims must be given; got None. Build the decoder with",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


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
