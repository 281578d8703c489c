"""Every preprocessor equals transformers' with every option that works there, and does what it says with the others."""

import pytest
import torch
import transformers
from transformers.models.perceiver import modeling_perceiver as hf

import perceiver_core
from perceiver_core import PerceiverConfig

EXACT = 1e-12


def fourier(*resolution, **more):
    return {"fourier_position_encoding_kwargs": {"num_bands": 3, "max_resolution": resolution, **more}}


def table(index_dims, channels):
    kwargs = {"index_dims": index_dims, "num_channels": channels}
    return {"position_encoding_type": "trainable", "trainable_position_encoding_kwargs": kwargs}


def image(**options):
    return "PerceiverImagePreprocessor", options


def audio(**options):
    return "PerceiverAudioPreprocessor", options


CASES = {
    "conv": (image(prep_type="conv", out_channels=8, **fourier(9, 13)), (2, 3, 37, 50)),
    "conv without batch norm": (
        image(out_channels=5, spatial_downsample=1, conv2d_use_batchnorm=False, **fourier(9, 13)),
        (2, 3, 24, 19),
    ),
    "conv of other channels": (image(in_channels=2, out_channels=5, **fourier(9, 13)), (2, 2, 24, 19)),
    "conv, positions added": (
        image(out_channels=14, concat_or_add_pos="add", **fourier(9, 13)),
        (2, 3, 24, 19),
    ),
    "conv, positions projected": (
        image(out_channels=14, concat_or_add_pos="add", project_pos_dim=14, **fourier(9, 13)),
        (2, 3, 24, 19),
    ),
    "conv1x1": (
        image(prep_type="conv1x1", spatial_downsample=1, out_channels=6, **table(30, 7)),
        (2, 3, 5, 6),
    ),
    "conv1x1, every third pixel": (
        image(prep_type="conv1x1", spatial_downsample=3, out_channels=6, **fourier(4, 4)),
        (2, 3, 7, 11),
    ),
    "conv1x1, projected": (
        image(
            prep_type="conv1x1", spatial_downsample=1, out_channels=6, project_pos_dim=4, **table((5, 6), 6)
        ),
        (2, 3, 5, 6),
    ),
    "pixels": (image(prep_type="pixels", spatial_downsample=1, **fourier(5, 6)), (2, 3, 5, 6)),
    "pixels of a video": (
        image(prep_type="pixels", spatial_downsample=2, temporal_downsample=3, **fourier(3, 5, 6)),
        (2, 7, 3, 5, 6),
    ),
    "patches": (image(prep_type="patches", spatial_downsample=2, **fourier(4, 6)), (2, 3, 8, 12)),
    "patches of a video": (
        image(prep_type="patches", spatial_downsample=2, temporal_downsample=2, **fourier(2, 4, 4)),
        (2, 4, 3, 6, 10),
    ),
    "patches of a frame pair": (
        image(
            prep_type="patches",
            spatial_downsample=1,
            temporal_downsample=2,
            conv_after_patching=True,
            **fourier(5, 7, sine_only=True),
        ),
        (2, 2, 27, 5, 7),
    ),
    "patches, projected": (
        image(
            prep_type="patches",
            spatial_downsample=2,
            conv_after_patching=True,
            conv_after_patching_in_channels=12,
            out_channels=10,
            **table(24, 5),
        ),
        (2, 3, 8, 12),
    ),
    "audio": (audio(samples_per_patch=7, **fourier(30720)), (2, 42, 1)),
    "audio with a table": (audio(samples_per_patch=7, **table(6, 9)), (2, 42, 1)),
    "audio, positions added": (
        audio(samples_per_patch=7, concat_or_add_pos="add", **table(6, 7)),
        (2, 42, 1),
    ),
    "audio, projected": (
        audio(samples_per_patch=7, out_channels=7, project_pos_dim=3, **fourier(30720)),
        (2, 42, 1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_equals(oracle, case):
    (name, options), shape = CASES[case]
    theirs = getattr(hf, name)(transformers.PerceiverConfig(), **options).double().eval()
    ours = getattr(perceiver_core, name)(PerceiverConfig(), **options).double().eval()
    oracle.randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    inputs = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        expected, got = theirs(inputs), ours(inputs)
        assert oracle.error(got.inputs, expected[0]) <= EXACT
        assert got.inputs.shape[-1] == ours.num_channels == theirs.num_channels
        assert got.modality_sizes is expected[1] is None
        without = expected[2].flatten(1, -2)  # upstream leaves the grid of some of them
        assert oracle.error(got.inputs_without_pos, without) <= EXACT
        if name == "PerceiverImagePreprocessor":
            expected, got = theirs(inputs, network_input_is_1d=False), ours(inputs, network_input_is_1d=False)
            assert oracle.error(got.inputs, expected[0]) <= EXACT
            assert oracle.error(got.inputs_without_pos, expected[2]) <= EXACT


def test_text(oracle):
    sizes = {"d_model": 12, "vocab_size": 31, "max_position_embeddings": 9}
    theirs = hf.PerceiverTextPreprocessor(transformers.PerceiverConfig(**sizes)).double()
    ours = perceiver_core.PerceiverTextPreprocessor(PerceiverConfig(**sizes)).double()
    oracle.randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ids = torch.randint(0, 31, (2, 7))
    for got, expected in zip(ours(ids), theirs(ids), strict=True):
        assert (got is None) == (expected is None)
        assert got is None or torch.equal(got, expected)
    assert ours.num_channels == theirs.num_channels == 12


def test_one_hot():
    theirs = hf.PerceiverOneHotPreprocessor(transformers.PerceiverConfig(num_labels=5))
    ours = perceiver_core.PerceiverOneHotPreprocessor(PerceiverConfig(num_labels=5))
    label = torch.rand(2, 5)
    assert all(torch.equal(ours(label)[i], theirs(label)[i]) for i in (0, 2))
    assert ours.num_channels == theirs.num_channels == 5


def multimodal(module, config):
    """Sound, images and a label, of different numbers of tokens and channels; of them only sound is masked."""
    parts = {
        "sound": module.PerceiverAudioPreprocessor(config, samples_per_patch=7, **fourier(42)),
        "image": module.PerceiverImagePreprocessor(
            config, prep_type="patches", spatial_downsample=2, **fourier(2, 4, 6)
        ),
        "label": module.PerceiverOneHotPreprocessor(config),
    }
    return module.PerceiverMultimodalPreprocessor(parts, mask_probs={"sound": 0.5}, min_padding_size=3)


def test_multimodal(oracle):
    theirs = multimodal(hf, transformers.PerceiverConfig(num_labels=5)).eval()
    ours = multimodal(perceiver_core, PerceiverConfig(num_labels=5)).eval()
    oracle.randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    inputs = {
        "image": torch.randn(2, 2, 3, 8, 12),
        "sound": torch.randn(2, 42, 1),
        "label": torch.rand(2, 5),
    }
    torch.manual_seed(3)
    expected = theirs(inputs)
    torch.manual_seed(3)
    got = ours(inputs)
    assert torch.equal(got.inputs, expected[0])
    assert (got.inputs[:, 48 + 1 :] == ours.mask["sound"]).all(-1).any()  # some of it was masked
    assert got.modality_sizes == expected[1] == {"image": 48, "label": 1, "sound": 6}
    assert oracle.worst(dict(sorted(got[2].items())), dict(sorted(expected[2].items()))) == 0
    assert ours.num_channels == theirs.num_channels


def test_every_second_pixel():
    # upstream's slices fall on the batch and the channels of an image
    ours = perceiver_core.PerceiverImagePreprocessor(
        PerceiverConfig(), prep_type="pixels", spatial_downsample=2, **fourier(4, 6)
    )
    images = torch.randn(2, 3, 7, 12)
    tokens, _, content = ours(images)
    assert torch.equal(content, images[:, :, ::2, ::2].permute(0, 2, 3, 1).flatten(1, 2))
    assert tokens.shape == (2, 4 * 6, ours.num_channels)


@pytest.mark.parametrize("prep_type", ["conv", "conv1x1"])
def test_convolution_of_a_video_is_that_of_its_frames(prep_type):
    # upstream fails on these
    options = {"prep_type": prep_type, "spatial_downsample": 4, "out_channels": 5}
    torch.manual_seed(0)
    ours = perceiver_core.PerceiverImagePreprocessor(PerceiverConfig(), **options, **fourier(3, 5, 7)).eval()
    frames = torch.randn(2, 3, 3, 20, 28)
    content = ours(frames).inputs_without_pos.unflatten(1, (3, -1))
    net = ours.convnet if prep_type == "conv" else ours.convnet_1x1
    for t in range(3):
        torch.testing.assert_close(content[:, t], net(frames[:, t]).flatten(2).transpose(1, 2))


def test_projected_fourier_features(oracle):
    # huggingface/transformers#22769: upstream sizes this projection by the image's channels
    options = {"prep_type": "pixels", "spatial_downsample": 1, "project_pos_dim": 6}
    ours = perceiver_core.PerceiverImagePreprocessor(PerceiverConfig(), **options, **fourier(5, 6))
    assert ours.positions_projection.weight.shape == (6, 14)
    tokens = ours(torch.randn(2, 3, 5, 6)).inputs
    expected = ours.positions_projection(ours.position_embeddings.of_inputs((5, 6), torch.device("cpu")))
    assert torch.equal(tokens[..., 3:], expected.expand(2, -1, -1))
    assert tokens.shape[-1] == ours.num_channels == 9


def test_refusals():
    config = PerceiverConfig(d_model=12, vocab_size=31, max_position_embeddings=9)
    text = perceiver_core.PerceiverTextPreprocessor(config)

    def picture(**options):
        return perceiver_core.PerceiverImagePreprocessor(config, **{**fourier(4, 6), **options})

    pixels = picture(prep_type="pixels")
    for call, message in [
        (
            lambda: text(torch.zeros(2, 10).long()),
            r"length from 1 to 9; got torch.int64 of shape \(2, 10\). Tok",
        ),
        (
            lambda: text(torch.zeros(2, 5)),
            r"must be integer ids of shape .*; got torch.float32 of shape \(2, 5\)",
        ),
        (lambda: text(torch.zeros(5).long()), r"got torch.int64 of shape \(5,\)"),
        (
            lambda: text(torch.tensor([[0, 31]])),
            "must be ids from 0 to 30; got 0 to 31. Is this the checkpoint's",
        ),
        (lambda: text(torch.tensor([[-1, 3]])), "must be ids from 0 to 30; got -1 to 3"),
        (
            lambda: picture(spatial_downsample=2),
            "spatial_downsample must be 4, or 1 as in the published.*; got 2",
        ),
        (
            lambda: picture(temporal_downsample=2),
            "'conv' keeps every frame: temporal_downsample must be 1; got 2",
        ),
        (lambda: picture(concat_or_add_pos="multiply"), "must be 'concat' or 'add'; got 'multiply'"),
        (
            lambda: pixels(torch.rand(3, 8, 8)),
            r"shape \(batch, 3, height, width\); got \(3, 8, 8\). Put channels",
        ),
        (
            lambda: pixels(torch.rand(1, 8, 8, 3)),
            r"shape \(batch, 3, height, width\); got \(1, 8, 8, 3\). Put ch",
        ),
        (
            lambda: pixels(torch.rand(1, 2, 3, 8, 8)),
            r"shape \(batch, 3, height, width\); got \(1, 2, 3, 8, 8\)",
        ),
        (
            lambda: pixels(torch.zeros(1, 3, 8, 8).byte()),
            "image input must be floating point; got torch.uint8. Us",
        ),
        (
            lambda: picture(prep_type="patches")(torch.rand(1, 3, 8, 10)),
            r"or \(batch, frames, 3, height, width\), frames a multiple of 1, height and width of 4; got \(1, 3, 8",
        ),
        (
            lambda: picture(prep_type="pixels", concat_or_add_pos="add")(torch.rand(1, 3, 8, 8)),
            "must have as many channels; got 3 and 14. Set project_pos_dim=3, or use 'concat'",
        ),
        (
            lambda: picture(prep_type="patches", **fourier(4))(torch.rand(1, 3, 8, 8)),
            r"max_resolution \(4,\) is for a grid of 1 dimensions; got the grid \(2, 2\). Give one resolution",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
