"""Optical flow on any size: grid, blend and scale against DeepMind's formulas, with stand-ins for the model."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from perceiver_core import estimate_flow, estimate_flows, frame_patches
from perceiver_core.flow import FLOW_SCALE_FACTOR
from perceiver_core.tiles import tile_corners, tile_weights

PUBLISHED = (368, 496)


class StandIn(nn.Module):
    """A flow model that computes `function` of its patches (N, 2, 27, h, w), and remembers what it was given."""

    def __init__(self, function, tile_size=(12, 17), dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.config = SimpleNamespace(train_size=tile_size)
        self.function = function
        self.inputs = []
        self.eval()

    def forward(self, inputs):
        assert inputs.dtype == self.weight.dtype
        assert inputs.shape[1:] == (2, 27, *self.config.train_size)
        self.inputs.append(inputs)
        return SimpleNamespace(logits=self.function(inputs) * self.weight)


def centre_pixels(patches):
    """(red of the first frame, blue of the second): a function of each pixel alone."""
    return torch.stack([patches[:, 0, 12], patches[:, 1, 14]], dim=-1)


def red_and_blue(frames):
    """What `centre_pixels` is of whole frames."""
    values = frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()
    return torch.stack([values[:, 0, 0], values[:, 1, 2]], dim=-1) * 2 - 1


def random_frames(pairs, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (pairs, 2, 3, height, width), generator=generator, dtype=torch.uint8)


def deepmind_grid(height, width, tile_size, min_overlap):
    """The published grid as it is, duplicates and all."""
    ys = list(range(0, height, tile_size[0] - min_overlap))
    xs = list(range(0, width, tile_size[1] - min_overlap))
    ys[-1], xs[-1] = height - tile_size[0], width - tile_size[1]
    return list(itertools.product(ys, xs))


def deepmind_blend(flows, corners, height, width, tile_size):
    """The published blend in float64, of flows (N, h, w, 2)."""
    x, y = np.meshgrid(np.arange(tile_size[1]), np.arange(tile_size[0]))
    weights = np.minimum(np.minimum(x + 1, tile_size[1] - x), np.minimum(y + 1, tile_size[0] - y))[
        ..., None
    ].astype(float)
    total, count = np.zeros((height, width, 2)), np.zeros((height, width, 1))
    for flow, (top, left) in zip(flows, corners, strict=True):
        around = ((top, height - top - tile_size[0]), (left, width - left - tile_size[1]), (0, 0))
        total += np.pad(flow * weights, around)
        count += np.pad(weights, around)
    return total / count


def test_published_grids():
    assert tile_corners(368, 496, PUBLISHED) == [(0, 0)]
    assert tile_corners(436, 1024, PUBLISHED) == [(0, 0), (0, 476), (0, 528), (68, 0), (68, 476), (68, 528)]
    assert tile_corners(369, 496, PUBLISHED) == [(0, 0), (1, 0)]
    assert tile_corners(716, 496, PUBLISHED) == [(0, 0), (348, 0)]
    assert tile_corners(700, 496, PUBLISHED) == [(0, 0), (332, 0)]  # DeepMind's has one that ends in row 716
    assert tile_corners(30, 10, (10, 10), 0) == [(0, 0), (10, 0), (20, 0)]


SIZES = st.tuples(st.integers(12, 90), st.integers(17, 120))
OVERLAPS = st.integers(0, 11)


@given(size=SIZES, overlap=OVERLAPS)
def test_the_grid_is_deepminds_without_its_duplicates(size, overlap):
    theirs = deepmind_grid(*size, (12, 17), overlap)
    ours = tile_corners(*size, (12, 17), overlap)
    if all(y + 12 <= size[0] and x + 17 <= size[1] for y, x in theirs):
        assert ours == sorted(set(theirs))


@given(size=SIZES, overlap=OVERLAPS)
def test_tiles_cover_the_frame(size, overlap):
    corners = tile_corners(*size, (12, 17), overlap)
    assert len(set(corners)) == len(corners)
    covered = np.zeros(size, int)
    for y, x in corners:
        assert 0 <= y <= size[0] - 12
        assert 0 <= x <= size[1] - 17
        covered[y : y + 12, x : x + 17] += 1
    assert covered.min() >= 1
    for starts, tile in ((sorted({y for y, _ in corners}), 12), (sorted({x for _, x in corners}), 17)):
        assert len(corners) == len({y for y, _ in corners}) * len({x for _, x in corners})
        assert all(tile - (after - before) >= overlap for before, after in itertools.pairwise(starts))


def test_weights_are_the_distance_to_the_border():
    assert tile_weights((3, 5)).tolist() == [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    weights = tile_weights(PUBLISHED)
    assert weights.shape == PUBLISHED
    assert (weights.min(), weights.max()) == (1, 184)
    assert weights[100, 495 - 7] == 8


@given(size=SIZES, overlap=OVERLAPS, batch_size=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_blend_is_deepminds(size, overlap, batch_size, seed):
    """Each tile's flow is random: the result is right only with the right weights at the right places."""
    corners = tile_corners(*size, (12, 17), overlap)
    tile_flows = (
        torch.rand(2 * len(corners), 12, 17, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )
    served = iter(tile_flows)
    model = StandIn(lambda patches: torch.stack([next(served) for _ in patches]))
    flow = estimate_flow(model, random_frames(2, *size), batch_size=batch_size, min_overlap=overlap)
    assert flow.dtype == torch.float32
    assert flow.shape == (2, *size, 2)
    for pair in range(2):
        of_pair = tile_flows[pair * len(corners) : (pair + 1) * len(corners)].double().numpy()
        expected = 20 * deepmind_blend(of_pair, corners, *size, (12, 17))
        np.testing.assert_allclose(flow[pair].numpy(), expected, rtol=0, atol=2e-5)


@given(height=st.integers(1, 60), width=st.integers(1, 60), batch_size=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_a_function_of_each_pixel_does_not_see_the_tiles(height, width, batch_size):
    frames = random_frames(2, height, width)
    model = StandIn(centre_pixels)
    flow = estimate_flow(model, frames, batch_size=batch_size, min_overlap=5)
    torch.testing.assert_close(flow, FLOW_SCALE_FACTOR * red_and_blue(frames), rtol=0, atol=1e-5)
    assert all(len(inputs) == batch_size for inputs in model.inputs[:-1])


@pytest.mark.parametrize(
    ("size", "tiles"), [((12, 17), 1), ((13, 17), 2), ((12, 18), 2), ((5, 4), 1), ((5, 40), 3), ((50, 3), 6)]
)
def test_number_of_tiles(size, tiles):
    model = StandIn(centre_pixels)
    done = []
    estimate_flow(
        model,
        random_frames(3, *size),
        batch_size=2,
        min_overlap=3,
        progress=lambda *counts: done.append(counts),
    )
    assert sum(map(len, model.inputs)) == 3 * tiles
    assert done == [(min(start + 2, 3 * tiles), 3 * tiles) for start in range(0, 3 * tiles, 2)]


def test_one_tile_is_the_models_flow_to_the_last_bit():
    logits = torch.rand(1, 12, 17, 2)
    flow = estimate_flow(StandIn(lambda patches: logits), random_frames(1, 12, 17), min_overlap=5)
    assert torch.equal(flow, 20 * logits)


def test_published_size():
    """436 x 1024, as in Sintel, with the constant (tile's number, 1) as each tile's flow."""
    numbers = itertools.count()

    def number(patches):
        flow = torch.ones(len(patches), *PUBLISHED, 2)
        for tile in flow:
            tile[..., 0] = next(numbers)
        return flow

    model = StandIn(number, PUBLISHED)
    flow = estimate_flow(model, torch.zeros(1, 2, 3, 436, 1024, dtype=torch.uint8), batch_size=4)
    assert [len(inputs) for inputs in model.inputs] == [4, 2]
    corners = deepmind_grid(436, 1024, PUBLISHED, 20)
    tiles = np.stack([np.full((*PUBLISHED, 2), (number, 1)) for number in range(6)])
    expected = 20 * deepmind_blend(tiles, corners, 436, 1024, PUBLISHED)
    np.testing.assert_allclose(flow[0].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_small_frames_are_in_the_middle_of_their_repeated_border():
    frames = random_frames(1, 3, 4)
    model = StandIn(centre_pixels)
    estimate_flow(model, frames, min_overlap=5)
    seen = (model.inputs[0][0, :, 12:15] + 1) * 255 / 2  # (2, 3, 12, 17)
    expected = np.pad(frames[0].numpy(), ((0, 0), (0, 0), (4, 5), (6, 7)), mode="edge")
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-3)


def test_patches():
    """Against plain indexing: row, column, colour, with 0 beyond the border."""
    frames = torch.rand(2, 2, 3, 4, 5)
    patches = frame_patches(frames)
    assert patches.shape == (2, 2, 27, 4, 5)
    for row, column, colour, y, x in itertools.product(range(3), range(3), range(3), range(4), range(5)):
        above, left = y + row - 1, x + column - 1
        inside = 0 <= above < 4 and 0 <= left < 5
        expected = frames[:, :, colour, above, left] * 2 - 1 if inside else torch.zeros(2, 2)
        assert torch.equal(patches[:, :, (row * 3 + column) * 3 + colour, y, x], expected)
    whole = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 3, 1, 1).repeat(1, 2, 1, 1, 1)
    torch.testing.assert_close(frame_patches(whole)[0, 0, 12:15, 0, 0], torch.tensor([-1, -0.6, 1]))
    assert frame_patches(whole).dtype == torch.float32
    assert frame_patches(frames.half()).dtype == torch.float16


def test_patches_are_cut_from_tiles():
    """A tile's border has zeros around it, though the frame goes on: so the model was trained."""
    model = StandIn(centre_pixels)
    estimate_flow(model, torch.full((1, 2, 3, 20, 17), 255, dtype=torch.uint8), min_overlap=4)
    (first, second) = model.inputs
    for patches in (first, second):
        assert (patches[:, :, :9, 0] == 0).all()
        assert (patches[:, :, 18:, -1] == 0).all()
        assert (patches[:, :, :, 1:-1, 1:-1] == 1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_precision(dtype):
    """The blend is float32 even so: tiles of 1 with bfloat16 weights would not sum to 20."""
    model = StandIn(lambda patches: torch.ones(len(patches), 12, 17, 2, dtype=dtype), dtype=dtype)
    flow = estimate_flow(model, random_frames(1, 30, 40), batch_size=3, min_overlap=5)
    assert flow.dtype == torch.float32
    torch.testing.assert_close(flow, torch.full((1, 30, 40, 2), 20.0), rtol=0, atol=1e-5)


def test_float_frames_are_uint8_frames_over_255():
    frames = random_frames(1, 20, 30)
    flows = [estimate_flow(StandIn(centre_pixels), same, min_overlap=5) for same in (frames, frames / 255)]
    torch.testing.assert_close(*flows)


def test_no_gradients_and_no_inference_tensors():
    flow = estimate_flow(StandIn(centre_pixels), random_frames(1, 12, 17), min_overlap=5)
    assert not flow.requires_grad
    assert not flow.is_inference()


def test_refusals():
    model = StandIn(centre_pixels)
    frames = random_frames(1, 20, 30)
    shape = r"frames must have shape \(pairs, 2, 3, height, width\); got \(.*\). Stack the two RGB frames"
    for wrong in (frames[0], frames[:, :1], frames.movedim(2, -1), frames[:0], frames[..., :0]):
        with pytest.raises(ValueError, match=shape):
            estimate_flow(model, wrong)
    with pytest.raises(ValueError, match=r"uint8 or floating point; got torch.int64. Convert them to uint8"):
        estimate_flow(model, frames.long())
    with pytest.raises(ValueError, match=r"uint8 or floating point; got torch.int32"):
        frame_patches(frames.int())
    with pytest.raises(
        ValueError, match=r"Float frames must be in \[0, 1\]; got 0.0 to 255.0. Divide 0..255 by 255"
    ):
        estimate_flow(model, frames.float())
    for value in (float("nan"), float("inf"), -0.5):
        broken = torch.zeros(1, 2, 3, 20, 30)
        broken[0, 1, 2, 3, 4] = value
        with pytest.raises(ValueError, match=r"Float frames must be in \[0, 1\]"):
            estimate_flow(model, broken)
    with pytest.raises(ValueError, match="min_overlap must be from 0 to 11, less than a tile's side; got 20"):
        estimate_flow(model, frames)
    with pytest.raises(ValueError, match="batch_size must be 1 or more tiles; got 0"):
        estimate_flow(model, frames, batch_size=0)
    for overlap in (-1, 12):
        with pytest.raises(
            ValueError, match=f"min_overlap must be from 0 to 11, .*; got {overlap}. Published is 20"
        ):
            estimate_flow(model, frames, min_overlap=overlap)
    with pytest.raises(ValueError, match=r"must be at least a tile, \(12, 17\); got \(11, 17\). Pad it"):
        tile_corners(11, 17, (12, 17), 0)
    with pytest.raises(
        ValueError, match=r"logits must have shape \(1, 12, 17, 2\); got \(1, 2, 12, 17\). Use a"
    ):
        estimate_flow(StandIn(lambda patches: centre_pixels(patches).movedim(-1, 1)), frames, min_overlap=0)
    with pytest.raises(ValueError, match=r"must be in eval mode; got training mode.*Call model.eval\(\)"):
        estimate_flow(model.train(), frames)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_pairs_of_several_sizes_share_calls(batch_size):
    sizes = [(30, 40), (12, 17), (5, 9), (30, 40), (12, 30)]
    pairs = [random_frames(1, *size, seed=seed)[0] for seed, size in enumerate(sizes)]
    model, done = StandIn(centre_pixels), []
    flows = estimate_flows(
        model, pairs, batch_size=batch_size, min_overlap=5, progress=lambda *of: done.append(of)
    )
    tiles = done[-1][1]
    assert [len(inputs) for inputs in model.inputs[:-1]] == [batch_size] * (len(model.inputs) - 1)
    assert sum(len(inputs) for inputs in model.inputs) == tiles
    for flow, pair in zip(flows, pairs, strict=True):
        assert torch.equal(flow, estimate_flow(StandIn(centre_pixels), pair[None], min_overlap=5)[0])


def test_no_pairs_are_no_flows():
    assert estimate_flows(StandIn(centre_pixels), []) == []


def test_every_pair_is_checked():
    with pytest.raises(
        ValueError, match=r"frames must have shape \(pairs, 2, 3, height, width\); got \(1, 3, 12, 17\)"
    ):
        estimate_flows(StandIn(centre_pixels), [torch.zeros(3, 12, 17)])
