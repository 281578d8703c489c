"""Output points: constructors, chunks, refusals."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perceiver_core import OutputPoints, PerceiverConfig
from perceiver_core.config import multimodal_perceiver
from perceiver_core.output_points import check_points, chunks, published_chunks


def test_constructors(config):
    assert OutputPoints.all(config).sizes == {"audio": 6, "image": 90, "label": 1}
    assert OutputPoints.labels_only().sizes == {"label": 1}
    points = OutputPoints.from_hf({"image": torch.tensor([3]), "audio": torch.tensor([1, 2])})
    assert points.sizes == {"audio": 2, "image": 1, "label": 1}
    assert OutputPoints.from_hf({"image": torch.tensor([3]), "label": None}).sizes == {"image": 1, "label": 1}


def test_published_chunks_cover_everything_once():
    config = multimodal_perceiver()
    pieces = list(published_chunks(config))
    every = OutputPoints.all(config)
    assert len(pieces) == 128
    assert {tuple(chunk.sizes.items()) for chunk in pieces} == {
        (("audio", 15), ("image", 6272), ("label", 1))
    }
    assert torch.equal(torch.cat([chunk.image for chunk in pieces]), every.image)
    assert torch.equal(torch.cat([chunk.audio for chunk in pieces]), every.audio)
    with pytest.raises(ValueError, match="nchunks must divide 802816 pixels and 1920 audio patches; got 7"):
        published_chunks(config, nchunks=7)


@given(image=st.integers(0, 9), audio=st.integers(0, 9), label=st.booleans(), size=st.integers(1, 25))
def test_chunks_keep_order(image, audio, label, size):
    if not (image or audio or label):
        return
    points = OutputPoints(
        torch.arange(100, 100 + image) if image else None, torch.arange(audio) if audio else None, label
    )
    pieces = list(chunks(points.indices, size))
    heights = [sum(indices.shape[0] for indices in piece.values()) for piece in pieces]
    assert heights[:-1] == [size] * (len(pieces) - 1)
    assert 0 < heights[-1] <= size
    for name, indices in points.indices.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces if name in piece]), indices)


def test_chunks_of_points_of_each_sample():
    points = {"image": torch.arange(10).view(2, 5), "audio": torch.arange(6).view(2, 3)}
    pieces = list(chunks(points, 4))
    assert [{name: part.shape for name, part in piece.items()} for piece in pieces] == [
        {"audio": (2, 3), "image": (2, 1)},
        {"image": (2, 4)},
    ]
    assert torch.equal(torch.cat([piece["image"] for piece in pieces], dim=1), points["image"])


@st.composite
def configs(draw):
    """Outputs of any size, with patches of sound that frames cut anywhere."""
    frames, height, width = (draw(st.integers(1, most)) for most in (5, 6, 7))
    return PerceiverConfig(
        num_frames=draw(
            st.sampled_from([frames, frames, 3])
        ),  # most inputs have as many frames as the output
        audio_samples_per_frame=draw(st.integers(3, 9)),
        samples_per_patch=draw(st.integers(1, 3)),
        output_shape=(1, frames, height, width),
    )


def check(points, config, pixels, patches, image_shape):
    """The points are those of a mask of the video and a list of patches, in order; coordinates and shape fit."""
    assert points.image.dtype == torch.long
    assert points.image.tolist() == np.flatnonzero(pixels).tolist()
    assert points.audio.tolist() == patches
    assert points.label is True
    assert points.coordinates(config).tolist() == np.argwhere(pixels).tolist()
    assert points.image_shape == image_shape
    video = torch.randn(pixels.shape)
    assert torch.equal(video.flatten()[points.image], video[torch.from_numpy(pixels)])


def heard(config, frames):
    """The patches that share time with one of the frames."""
    last = Fraction(config.num_audio_samples, config.output_shape[1])
    size = config.samples_per_patch
    return [
        patch
        for patch in range(config.num_audio_patches)
        if any(patch * size < (f + 1) * last and f * last < (patch + 1) * size for f in frames)
    ]


@settings(deadline=None)
@given(config=configs(), strides=st.tuples(*[st.integers(1, 8)] * 3), audio_stride=st.integers(1, 5))
def test_grid(config, strides, audio_stride):
    shape = config.output_shape[1:]
    t, y, x = np.indices(shape)
    every = list(range(config.num_audio_patches))
    pixels = (t % strides[0] == 0) & (y % strides[1] == 0) & (x % strides[2] == 0)
    counts = tuple(len(range(0, size, step)) for size, step in zip(shape, strides, strict=True))
    points = OutputPoints.grid(config, strides, audio_stride=audio_stride)
    check(points, config, pixels, every[::audio_stride], counts)
    in_space = OutputPoints.grid(config, strides[1])
    pixels = (y % strides[1] == 0) & (x % strides[1] == 0)
    check(in_space, config, pixels, every, (shape[0], *np.ceil(np.array(shape[1:]) / strides[1]).astype(int)))
    whole, one = OutputPoints.all(config), OutputPoints.grid(config, 1)
    check(whole, config, np.ones(shape, bool), every, shape)
    assert torch.equal(one.image, whole.image)
    assert one.image_shape == whole.image_shape


@settings(deadline=None)
@given(config=configs(), data=st.data())
def test_frames_and_region(config, data):
    shape = config.output_shape[1:]
    t, y, x = np.indices(shape)
    frames = sorted(data.draw(st.sets(st.integers(0, shape[0] - 1), min_size=1)))
    assume(heard(config, frames[:1]))  # samples too few for a patch may be left at the end
    points = OutputPoints.frames(
        config, data.draw(st.sampled_from([tuple, torch.tensor, np.array, iter]))(frames)
    )
    check(points, config, np.isin(t, frames), heard(config, frames), (len(frames), *shape[1:]))
    alone = OutputPoints.frames(config, frames[0])
    check(alone, config, t == frames[0], heard(config, frames[:1]), (1, *shape[1:]))

    top, left = (data.draw(st.integers(0, size - 1)) for size in shape[1:])
    height, width = data.draw(st.integers(1, shape[1] - top)), data.draw(st.integers(1, shape[2] - left))
    box = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
    every = list(range(config.num_audio_patches))
    points = OutputPoints.region(config, top, left, height, width)
    check(points, config, box, every, (shape[0], height, width))
    points = OutputPoints.region(config, top, left, height, width, frames)
    check(points, config, box & np.isin(t, frames), heard(config, frames), (len(frames), height, width))


@settings(deadline=None)
@given(config=configs(), seed=st.integers(0, 2**63 - 1), data=st.data())
def test_random(config, seed, data):
    pixels, patches = np.prod(config.output_shape[1:]), config.num_audio_patches
    k = data.draw(st.integers(1, int(pixels)))
    audio_k = data.draw(st.none() | st.integers(1, patches))
    points = OutputPoints.random(config, k, seed, audio_k=audio_k)
    for indices, count, end in [(points.image, k, pixels), (points.audio, audio_k or patches, patches)]:
        assert indices.shape == (count,)
        assert 0 <= indices[0] <= indices[-1] < end
        assert (indices.diff() > 0).all()
    again = OutputPoints.random(config, k, seed, audio_k=audio_k)
    assert torch.equal(again.image, points.image)
    assert torch.equal(again.audio, points.audio)
    assert torch.equal(OutputPoints.random(config, k, seed, audio=False).image, points.image)
    fewer = OutputPoints.random(config, data.draw(st.integers(1, k)), seed)
    assert set(fewer.image.tolist()) <= set(points.image.tolist())
    assert points.image_shape is None


def test_random_points_are_the_same_everywhere():
    config = multimodal_perceiver()
    state = torch.get_rng_state()
    points = OutputPoints.random(config, 5, seed=0, audio_k=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert (points.image.tolist(), points.audio.tolist()) == (
        [68268, 148571, 521875, 583079, 590255],
        [925, 957, 1448, 1734],
    )
    assert OutputPoints.random(config, 5, seed=1).image.tolist() != points.image.tolist()
    counts = torch.bincount(OutputPoints.random(config, 100_000, seed=3).image // 50_176, minlength=16)
    assert counts.min() > 5_900  # of 6,250 in each of 16 frames: none is favoured
    assert counts.max() < 6_600


def test_what_is_left_out(config):
    for make in (
        lambda **options: OutputPoints.grid(config, 2, **options),
        lambda **options: OutputPoints.frames(config, 1, **options),
        lambda **options: OutputPoints.region(config, 1, 2, 3, 4, **options),
        lambda **options: OutputPoints.random(config, 4, 0, **options),
    ):
        assert make().sizes.keys() == {"audio", "image", "label"}
        assert make(audio=False).sizes.keys() == {"image", "label"}
        assert make(label=False).sizes.keys() == {"audio", "image"}
        assert make(audio=False, label=False).sizes.keys() == {"image"}


def test_bad_constructions(config):
    grid, frames = OutputPoints.grid, OutputPoints.frames
    region, random = OutputPoints.region, OutputPoints.random
    short = dataclasses.replace(config, num_frames=5, audio_samples_per_frame=2, output_shape=(1, 5, 5, 9))
    assert short.num_audio_patches == 1  # of 7 samples out of 10: during the last frame there is none
    one = torch.tensor([1])
    for make, text in [
        (
            lambda: grid(config, 0),
            "^stride must be a whole number, 1 or more; got 0. Use 1 to leave nothing out.",
        ),
        (lambda: grid(config, (1, 2, -1)), "stride must be a whole number, 1 or more; got -1"),
        (lambda: grid(config, (1, 2.0, 1)), "stride must be a whole number, 1 or more; got 2.0"),
        (lambda: grid(config, (2, 2)), r"three for \(t, y, x\); got \(2, 2\). Use \(1, 4, 4\) or 4"),
        (lambda: grid(config, 1.5), "stride must be a whole number, or three .*; got 1.5"),
        (
            lambda: grid(config, 1, audio_stride=0),
            "^audio_stride must be a whole number, 1 or more; got 0. Use 1 for",
        ),
        (
            lambda: frames(config, [0, 2]),
            "Each of frames must be .* from 0 to 1; got 2. Frames are counted from 0",
        ),
        (
            lambda: frames(config, -1),
            "Each of frames must be .*; got -1. Frames .* from 0, and the last is 1.",
        ),
        (lambda: frames(config, 0.5), "Each of frames must be .*; got 0.5"),
        (lambda: frames(config, [False, True]), "Each of frames must be .*; got False"),
        (lambda: frames(config, one.bool()), "Each of frames must be .*; got tensor"),
        (lambda: frames(config, [1, 0]), r"increasing, .*; got \[1, 0\]. Use sorted\(set\(frames\)\)"),
        (lambda: frames(config, [1, 1]), r"frames must be increasing, each once, .*; got \[1, 1\]"),
        (lambda: frames(config, []), r"and at least one; got \[\]"),
        (
            lambda: frames(short, 4),
            r"of 1 audio patches must sound during .*; got none for \[4\]. .* audio=False",
        ),
        (
            lambda: region(config, 5, 0, 1, 1),
            "^top must be .* from 0 to 4; got 5. The output has 5 rows and 9 col",
        ),
        (lambda: region(config, 0, -1, 1, 1), "^left must be a whole number, from 0 to 8; got -1"),
        (lambda: region(config, 2, 0, 4, 1), "^height must be a whole number, from 1 to 3; got 4"),
        (lambda: region(config, 0, 8, 1, 2), "^width must be a whole number, from 1 to 1; got 2"),
        (lambda: region(config, 0, 0, 1, 1, [2]), "Each of frames must be .*; got 2"),
        (
            lambda: random(config, 91, 0),
            "^k must be .* from 1 to 90; got 91. Each of 90 points is drawn at most once",
        ),
        (lambda: random(config, 0, 0), "^k must be a whole number, from 1 to 90; got 0"),
        (lambda: random(config, 1, 0, audio_k=7), "^audio_k must be a whole number, from 1 to 6; got 7"),
        (
            lambda: random(config, 1, -1),
            "^seed must be a whole number, from 0 to 9223372036854775807; got -1",
        ),
        (lambda: random(config, 1, "0"), "^seed must be a whole number, .*; got '0'"),
        (
            lambda: OutputPoints(one, None, True, (1, 1, 2)),
            r"of as many points as image has, 1; got \(1, 1, 2\)",
        ),
        (
            lambda: OutputPoints(one, None, True, (1, 1)),
            r"image_shape must be \(T, H, W\) of .*; got \(1, 1\)",
        ),
        (lambda: OutputPoints(None, one, True, (1, 1, 1)), "as image has, 0; got .*. Use None for points"),
        (lambda: OutputPoints.labels_only().coordinates(config), "those of pixels; got points without any"),
        (
            lambda: OutputPoints(one + 89, None, True).coordinates(config),
            "must be from 0 to 89, .*; got 90 to 90",
        ),
    ]:
        with pytest.raises(ValueError, match=text):
            make()
    assert frames(short, 4, audio=False).sizes == {"image": 45, "label": 1}


def test_refusals():
    one = torch.tensor([1])
    for arguments, text in [
        (
            (one.float(), None, True),
            "image points must be integer indices; got torch.float32. Use torch.arange",
        ),
        ((None, one.bool(), True), "audio points must be integer indices; got torch.bool"),
        (
            (one[None], None, True),
            r"image points must have shape \(points,\); got \(1, 1\). Use flat indices",
        ),
        (
            (None, one[:0], True),
            r"audio points must not be empty; got shape \(0,\). Use None to leave audio out",
        ),
        ((None, None, False), "must have at least one of image, audio and label; got none of them"),
    ]:
        with pytest.raises(ValueError, match=text):
            OutputPoints(*arguments)
    for points, text in [
        (torch.tensor([90, 1]), r"must be from 0 to 89, flat indices into \(2, 5, 9\); got 1 to 90"),
        (torch.tensor([[-1, 0]]), "must be from 0 to 89, .*; got -1 to 0"),
        (one[None, None], r"must have shape \(points,\) or \(batch, points\); got \(1, 1, 1\). Use flat"),
        (one.float(), "Output points must be integer indices; got torch.float32"),
    ]:
        with pytest.raises(ValueError, match=text):
            check_points(points, (2, 5, 9))
    for values in ({"image": one, "label": one}, {"video": one}):
        with pytest.raises(
            ValueError, match="may have indices for 'image' and 'audio', and None for 'label'; got"
        ):
            OutputPoints.from_hf(values)
