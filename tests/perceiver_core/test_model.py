"""encode and decode: chunks, the label that is never looked at, compilation, refusals."""

import math

import pytest
import torch

from perceiver_core import OutputPoints, PerceiverConfig, PerceiverForMultimodalAutoencoding, preprocessors
from perceiver_core.attention import PerceiverLayer
from perceiver_core.decoders import PerceiverBasicDecoder, PerceiverBasicVideoAutoencodingDecoder
from perceiver_core.image_preprocessor import PerceiverImagePreprocessor
from perceiver_core.modalities import PerceiverMultimodalPreprocessor


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 96, 97, 500])
def test_chunks_equal_one_piece(model, inputs, config, chunk_size):
    model.double()
    latents = model.encode(inputs)
    points = OutputPoints.all(config)
    whole, pieces = model.decode(latents, points), model.decode(latents, points, chunk_size)
    assert {name: tuple(tensor.shape) for name, tensor in whole.items()} == {
        "audio": (2, 42),
        "image": (2, 90, 3),
        "label": (2, 5),
    }
    for name, expected in whole.items():
        torch.testing.assert_close(pieces[name], expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def test_every_chunk_has_the_same_height(model, inputs, config, monkeypatch):
    latents = model.encode(inputs)
    decoder = model.perceiver.decoder
    heights, projections = [], []
    attend, keys_values = decoder.attend, decoder.keys_values
    monkeypatch.setattr(
        decoder, "attend", lambda q, *rest: (heights.append(q.shape[:2]), attend(q, *rest))[1]
    )
    monkeypatch.setattr(decoder, "keys_values", lambda z: (projections.append(1), keys_values(z))[1])
    model.decode(latents, OutputPoints.all(config), chunk_size=40)
    assert heights == [(1, 40)] * 3
    assert projections == [1]


def test_decoding_twice_gives_the_same_bits(model, inputs, config):
    latents = model.encode(inputs)
    points = OutputPoints(torch.tensor([3, 88, 0, 41, 89]), torch.tensor([5, 1]), True)
    assert equal(model.decode(latents, points, chunk_size=4), model.decode(latents, points, chunk_size=4))


def test_some_modalities(model, inputs, config):
    latents = model.double().encode(inputs)
    whole = model.decode(latents, OutputPoints.all(config))
    for points, expected in [
        (OutputPoints.labels_only(), {"label": whole["label"]}),
        (OutputPoints(torch.tensor([89, 4]), None, False), {"image": whole["image"][:, [89, 4]]}),
        (OutputPoints(None, torch.tensor([2]), False), {"audio": whole["audio"][:, 14:21]}),
    ]:
        for chunk_size in (None, 3):
            got = model.decode(latents, points, chunk_size)
            assert got.keys() == expected.keys()
            for name, tensor in expected.items():
                torch.testing.assert_close(got[name], tensor, rtol=1e-11, atol=1e-12)


def test_the_label_is_never_looked_at(model, inputs):
    before = torch.get_rng_state()
    expected = model.encode(inputs)
    for label in (torch.zeros(2, 5), torch.full((2, 5), math.nan), torch.ones(2, 5, dtype=torch.long)):
        assert torch.equal(model.encode({**inputs, "label": label}), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_partial_masks():
    config = PerceiverConfig(num_labels=5)
    audio = preprocessors.PerceiverAudioPreprocessor(
        config,
        samples_per_patch=3,
        fourier_position_encoding_kwargs={"num_bands": 2, "max_resolution": (9,)},
    )
    label = preprocessors.PerceiverOneHotPreprocessor(config)
    masked = PerceiverMultimodalPreprocessor(
        {"label": label, "audio": audio}, mask_probs={"audio": 0.5, "label": 0.0}
    )
    inputs = {"audio": torch.randn(3, 300, 1), "label": torch.rand(3, 5)}
    tokens, sizes, _ = masked(inputs)
    assert sizes == {"audio": 100, "label": 1}
    assert tokens.shape == (3, 101, 10)
    torch.testing.assert_close(tokens[:, 100, :5], inputs["label"])  # after audio, though it was listed first
    is_masked = (tokens[:, :100] == masked.mask["audio"]).all(dim=-1)
    assert 0.3 < is_masked.double().mean() < 0.7
    torch.testing.assert_close(
        tokens[:, :100][~is_masked][:, :3], inputs["audio"].reshape(3, 100, 3)[~is_masked]
    )


def test_square_image_size_may_be_a_pair(config):
    import dataclasses

    pair = PerceiverForMultimodalAutoencoding(dataclasses.replace(config, image_size=(8, 8)))
    single = PerceiverForMultimodalAutoencoding(config)
    indices = torch.arange(90)
    decoders = (m.perceiver.decoder.modalities["image"] for m in (pair, single))
    assert torch.equal(*(d.decoder_query(torch.zeros(1), subsampled_points=indices) for d in decoders))


def test_outputs_are_read_by_name_key_and_position(model, inputs):
    output = model(inputs)
    assert output["logits"] is output[0] is output.logits
    assert output.to_tuple() == (output.logits,)


def test_compiles_without_graph_breaks(model, inputs, config):
    points = {"image": torch.tensor([3, 88]), "audio": torch.tensor([5, 1])}
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert equal(
        compiled(inputs, subsampled_output_points=points).logits,
        model(inputs, subsampled_output_points=points).logits,
    )


def test_everything_is_computed_on_the_models_device(model, inputs, config):
    # mixing devices is an error on meta as it is on a GPU; points may stay on the CPU
    latents = model.to("meta").encode(
        {name: x.to("meta") for name, x in inputs.items()}, torch.ones(2, 19, device="meta")
    )
    outputs = model.decode(latents, OutputPoints.all(config), chunk_size=40)
    assert all(tensor.is_meta for tensor in (latents, *outputs.values()))
    assert outputs["image"].shape == (2, 90, 3)


def test_bad_inputs(model, inputs):
    image, audio = inputs["image"], inputs["audio"]
    for changes, text in [
        (
            {"image": image[..., :10]},
            r"image input must have shape .* of 4; got \(2, 2, 3, 8, 10\). Put channels",
        ),
        (
            {"image": image[:, :, :2]},
            r"image input must have shape \(batch, frames, 3, height, width\).*\(2, 2, 2,",
        ),
        ({"image": image[:, 0]}, r"image input must have shape .*got \(2, 3, 8, 12\)"),
        ({"image": image[:, :0]}, r"image input must have shape .*got \(2, 0, 3, 8, 12\)"),
        (
            {"audio": audio[:, :40]},
            r"audio input must have shape .*a multiple of 7; got \(2, 40, 1\). Choose one",
        ),
        (
            {"audio": audio.expand(-1, -1, 2)},
            r"audio input must have shape \(batch, samples, 1\).*got \(2, 42, 2\)",
        ),
        (
            {"image": image.byte()},
            r"image input must be floating point; got torch.uint8. Scale pixels to \[0, 1\]",
        ),
        ({"audio": audio[:1]}, "must have the same batch size; got {'audio': 1, 'image': 2}"),
        (
            {"video": image},
            r"keys \['audio', 'image'\], may have \['label'\] and no other; got \['audio', 'image', 'v",
        ),
    ]:
        with pytest.raises(ValueError, match=text):
            model.encode({**inputs, **changes})
    with pytest.raises(ValueError, match=r"must have the keys .*; got \['image'\]. Give zeros for sound"):
        model.encode({"image": image})
    with pytest.raises(
        ValueError, match=r"attention_mask must have shape \(2, 13\); got \(2, 3\). Give one number"
    ):
        model.encode({**inputs, "image": image[:, :1]}, attention_mask=torch.ones(2, 3))


def test_bad_decodes(model, inputs):
    latents = model.encode(inputs)
    with pytest.raises(
        ValueError, match=r"latents must have shape \(batch, latents, 16\); got \(6, 16\). Give what"
    ):
        model.decode(latents[0], OutputPoints.labels_only())
    with pytest.raises(ValueError, match=r"chunk_size must be at least 1; got 0. Use None"):
        model.decode(latents, OutputPoints.labels_only(), chunk_size=0)
    with pytest.raises(
        ValueError, match=r"Output points must be from 0 to 89, flat indices into \(2, 5, 9\); got 90 to 90"
    ):
        model(inputs, subsampled_output_points={"image": torch.tensor([90])})


def test_bad_parts(config):
    bands = {"fourier_position_encoding_kwargs": {"num_bands": 2, "max_resolution": (9,)}}
    for build, text in [
        (
            lambda: PerceiverImagePreprocessor(config, prep_type="vit", **bands),
            "prep_type must be one of conv, conv1x1, patches, pixels; got 'vit'",
        ),
        (
            lambda: preprocessors.PerceiverAudioPreprocessor(config, prep_type="conv", **bands),
            "prep_type must be 'patches'; got 'conv'",
        ),
        (
            lambda: PerceiverBasicDecoder(config, 3, position_encoding_type="trainable", **bands),
            "must be 'fourier' or 'trainable', with .*; got 'trainable', trainable None and fourier {'num_bands'",
        ),
        (
            lambda: PerceiverBasicVideoAutoencodingDecoder(config, [2, 3], "fourier", **bands),
            r"output_shape must have 4 numbers .*; got \[2, 3\]",
        ),
        (
            lambda: PerceiverLayer(config, q_dim=16, kv_dim=16, num_heads=3),
            "must be multiples of the number of heads; got 16 and 16 for 3 heads",
        ),
        (
            lambda: PerceiverLayer(config, q_dim=16, kv_dim=16, v_channels=8),
            "v_channels must be 16; got 8. Leave v_channels at None",
        ),
        (
            lambda: PerceiverLayer(PerceiverConfig(hidden_act="gelu_fast"), q_dim=16, kv_dim=16),
            r"hidden_act must be one of \['gelu', .*\]; got 'gelu_fast'",
        ),
    ]:
        with pytest.raises(ValueError, match=text):
            build()
    label = preprocessors.PerceiverOneHotPreprocessor(config)
    with pytest.raises(ValueError, match=r"label input must have shape \(batch, 5\); got \(2, 4\)"):
        label(torch.zeros(2, 4))
