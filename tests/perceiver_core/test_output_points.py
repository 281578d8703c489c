"""Output points: constructors, chunks, refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_core import OutputPoints
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
