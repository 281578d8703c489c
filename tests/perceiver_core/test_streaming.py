"""Outputs in chunks: every kind of points, one tensor for the output, the caller's own, refusals."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import perceiver_core
from perceiver_core import OutputPoints, PerceiverConfig

SMALL = {"num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 1, "initializer_range": 0.3}
HEADS = {"num_self_attention_heads": 2, "num_cross_attention_heads": 1}
SHAPES = {"audio": (2, 42), "image": (2, 90, 3), "label": (2, 5)}

KINDS = {
    "all": OutputPoints.all,
    "grid": lambda config: OutputPoints.grid(config, 2, audio_stride=2),
    "strides": lambda config: OutputPoints.grid(config, (2, 3, 4), label=False),
    "frames": lambda config: OutputPoints.frames(config, 1),
    "region": lambda config: OutputPoints.region(config, 1, 2, 3, 4, [0], audio=False),
    "random": lambda config: OutputPoints.random(config, 30, seed=5, audio_k=3),
    "indices": lambda config: OutputPoints(torch.tensor([89, 4, 4, 0]), torch.tensor([5, 1]), False),
    "labels": lambda config: OutputPoints.labels_only(),
}


class Storages(TorchDispatchMode):
    """Keeps the memory of every tensor of that many numbers, so that no address comes twice."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.kept = numbers, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() == self.numbers:
            storage = result.untyped_storage()
            self.kept[storage.data_ptr()] = storage
        return result


def rows(whole, points):
    """The points' rows of a decode of everything."""
    expected = {}
    if points.audio is not None:
        expected["audio"] = whole["audio"].unflatten(1, (6, 7))[:, points.audio].flatten(1)
    if points.image is not None:
        expected["image"] = whole["image"][:, points.image]
    return expected | ({"label": whole["label"]} if points.label else {})


def empties(points, dtype=torch.float32):
    """Tensors for the points, full of what no decoder gives."""
    sizes = points.sizes
    shapes = {
        "audio": (2, 7 * sizes.get("audio", 0)),
        "image": (2, sizes.get("image", 0), 3),
        "label": (2, 5),
    }
    return {name: torch.full(shapes[name], torch.nan, dtype=dtype) for name in sizes}


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 40, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_rows_of_everything(model, inputs, config, kind, chunk_size):
    latents = model.double().encode(inputs)
    points = KINDS[kind](config)
    expected = rows(model.decode(latents), points)
    out = empties(points, torch.float64)
    for got in (
        model.decode(latents, points, chunk_size),
        model.decode(latents, points, chunk_size, out=out),
    ):
        assert list(got) == list(expected)
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor, rtol=1e-11, atol=1e-12)
    assert got is out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("chunk_size", [None, 40])
def test_out_of_any_dtype(model, inputs, config, dtype, chunk_size):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    expected = model.decode(latents, points, chunk_size)
    out = empties(points, dtype)
    places = {name: tensor.data_ptr() for name, tensor in out.items()}
    got = model.decode(latents, points, chunk_size, out=out)
    assert got is out
    for name, tensor in expected.items():
        assert got[name].data_ptr() == places[name]
        assert torch.equal(got[name], tensor.to(dtype))


def test_out_may_be_a_part_of_something_larger(model, inputs, config):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    canvas = torch.zeros(4, 90, 8)
    out = {**empties(points), "image": canvas[1:3, :, 2:5]}
    expected = model.decode(latents, points, 40)["image"]
    assert torch.equal(model.decode(latents, points, 40, out=out)["image"], expected)
    assert torch.equal(canvas[1:3, :, 2:5], expected)
    assert canvas.count_nonzero() == expected.count_nonzero()


@pytest.mark.parametrize("own", [False, True])
def test_the_output_is_in_memory_once(model, inputs, config, own):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    out = empties(points) if own else None
    with Storages(2 * 90 * 3) as seen:
        got = model.decode(latents, points, 40, out=out)
    assert seen.kept.keys() <= {got["image"].untyped_storage().data_ptr()}
    assert len(seen.kept) == (0 if own else 1)


def test_pieces_are_gone_once_written(model, inputs, config):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    pieces, alive = [], []

    def count(module, arguments, piece):
        alive.append(sum(earlier() is not None for earlier in pieces))
        pieces.append(weakref.ref(piece))

    image = model.perceiver.output_postprocessor.modalities["image"]
    with image.register_forward_hook(count):
        model.decode(latents, points, 10)
        assert len(alive) == 10
        assert max(alive) <= 1  # the one before
        pieces.clear()
        model.decode(latents.requires_grad_(), points, 10)
    assert max(alive) == 9  # gradients need them all, and so the count can fail


def test_attention_maps_of_all_chunks(model, inputs, config):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    outputs, maps = model.perceiver._decode(latents, points, 40, None, None, output_attentions=True)
    assert [tuple(m.shape) for m in maps] == [(2, 1, 40, 6)] * 3
    assert outputs["image"].shape == (2, 90, 3)


def test_gradients_through_chunks(model, inputs, config):
    model.double()
    points = KINDS["random"](config)
    weights = {name: torch.randn_like(part) for name, part in empties(points, torch.float64).items()}

    def gradients(chunk_size, learns):
        model.requires_grad_(False)
        latents = model.encode(inputs).requires_grad_(learns == "latents")
        parameter = model.perceiver.decoder.modalities[
            "label"
        ].decoder.output_position_encodings.position_embeddings
        parameter.requires_grad_(learns == "label")  # then audio and image alone need no gradient
        got = model.decode(latents, points, chunk_size)
        total = sum((got[name] * weights[name]).sum() for name in got)
        return torch.autograd.grad(total, latents if learns == "latents" else parameter)[0]

    for learns in ("latents", "label"):
        expected = gradients(None, learns)
        assert expected.abs().max() > 0
        for chunk_size in (1, 7, 100):
            torch.testing.assert_close(gradients(chunk_size, learns), expected, rtol=1e-10, atol=1e-12)


def test_none_stands_for_all_points_in_chunks_too(model, inputs, config):
    latents = model.double().encode(inputs)
    asked = {"image": None, "audio": torch.tensor([4])}
    whole = model.decode(latents, asked)
    for chunk_size in (7, 200):
        got = model.decode(latents, asked, chunk_size)
        assert got.keys() == whole.keys() == {"audio", "image"}
        for name in got:
            torch.testing.assert_close(got[name], whole[name], rtol=1e-11, atol=1e-12)
    for chunk_size in (None, 7):
        with pytest.raises(
            ValueError, match=r"some of the modalities \['audio', 'image', 'label'\]; got \['video'\]"
        ):
            model.decode(latents, {"video": None}, chunk_size)
        with pytest.raises(ValueError, match=r"Output points must be of some of the modalities .*; got none"):
            model.decode(latents, {}, chunk_size)


def test_out_on_a_device_without_values(model, inputs, config):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    out = {name: tensor.to("meta") for name, tensor in empties(points, torch.float64).items()}
    assert model.decode(latents, points, 40, out=out) is out
    assert {name: tuple(tensor.shape) for name, tensor in out.items()} == SHAPES


@pytest.mark.parametrize("own", [False, True])
def test_chunks_compile(model, inputs, config, own):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    expected = model.decode(latents, points, 40)
    decode = torch.compile(model.decode, fullgraph=True, backend="eager")
    got = decode(latents, points, 40, out=empties(points) if own else None)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor)


def masked_lm():
    config = PerceiverConfig(**SMALL, **HEADS, d_model=16, vocab_size=20, max_position_embeddings=9)
    return perceiver_core.PerceiverForMaskedLM(config), torch.randint(20, (2, 9)), (2, 9, 20)


def flow():
    config = PerceiverConfig(**SMALL, **HEADS, d_model=322, train_size=(4, 6))
    return perceiver_core.PerceiverForOpticalFlow(config), torch.randn(2, 2, 27, 4, 6), (2, 4, 6, 2)


def classes():
    config = PerceiverConfig(**SMALL, **HEADS, d_model=261, image_size=8, num_labels=5)
    return perceiver_core.PerceiverForImageClassificationFourier(config), torch.randn(2, 3, 8, 8), (2, 5)


def projected():
    config = PerceiverConfig(**SMALL, **HEADS, d_model=10)
    table = {"num_channels": 8, "index_dims": 9}
    decoder = perceiver_core.PerceiverBasicDecoder(
        config, output_num_channels=7, num_channels=8, trainable_position_encoding_kwargs=table
    )
    post = perceiver_core.PerceiverProjectionPostprocessor(7, 4)
    return (
        perceiver_core.PerceiverModel(config, decoder, output_postprocessor=post),
        torch.randn(2, 3, 10),
        (2, 9, 4),
    )


@pytest.mark.parametrize("build", [masked_lm, flow, classes, projected])
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_out_of_one_tensor(build, chunk_size):
    torch.manual_seed(0)
    model, inputs, shape = build()
    model.eval().requires_grad_(False)
    latents = model.encode(inputs)
    more = {"inputs": inputs} if build is flow else {}
    expected = model.decode(latents, chunk_size=chunk_size, **more)
    assert expected.shape == shape
    out = torch.full(shape, torch.nan, dtype=torch.float64)
    assert model.decode(latents, chunk_size=chunk_size, out=out, **more) is out
    torch.testing.assert_close(out.float(), expected, rtol=1e-6, atol=1e-6)

    points = torch.tensor([0]) if build is classes else torch.tensor([[5, 1, 1, 0, 3], [2, 2, 8, 7, 6]])
    expected = model.decode(latents, points, chunk_size, **more)
    out = torch.full(expected.shape, torch.nan)
    assert model.decode(latents, points, chunk_size, out=out, **more) is out
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)

    with pytest.raises(ValueError, match=r"^out must have shape \(2, .*; got \(3,\). Use torch.empty\(\(2, "):
        model.decode(latents, chunk_size=chunk_size, out=torch.zeros(3), **more)
    with pytest.raises(ValueError, match=r"^out must be a tensor; got dict. Give one"):
        model.decode(latents, chunk_size=chunk_size, out={"logits": out}, **more)


def test_bad_outs(model, inputs, config):
    latents, points = model.encode(inputs), OutputPoints.all(config)
    good = empties(points)
    for out, text in [
        (
            {**good, "image": torch.zeros(2, 89, 3)},
            r"out\['image'\] must have shape \(2, 90, 3\); got \(2, 89, 3\)",
        ),
        (
            {**good, "label": torch.zeros(2, 1, 5)},
            r"out\['label'\] must have shape \(2, 5\); got \(2, 1, 5\). Use",
        ),
        ({**good, "audio": torch.zeros(1, 42)}, r"out\['audio'\] must have shape \(2, 42\); got \(1, 42\)"),
        (
            {**good, "audio": good["audio"].int()},
            r"out\['audio'\] must be floating point, .*; got torch.int32. Round",
        ),
        (
            {"image": good["image"]},
            r"for each of \['audio', 'image', 'label'\], .*; got \['image'\]. Ask for other",
        ),
        ({**good, "video": good["image"]}, r"no other; got \['audio', 'image', 'label', 'video'\]"),
        (good["image"], "for each of .*; got one tensor"),
    ]:
        for chunk_size in (None, 40):
            with pytest.raises(ValueError, match=text):
                model.decode(latents, points, chunk_size, out=out)
    assert all(tensor.isnan().all() for tensor in good.values())  # refused before anything is written
    for learning in (latents.requires_grad_(), latents.detach()):
        out = {
            name: tensor.clone().requires_grad_(not learning.requires_grad) for name, tensor in good.items()
        }
        with pytest.raises(ValueError, match=r"out\['audio'\] can take no gradients, .* torch.no_grad\(\)"):
            model.decode(learning, points, 40, out=out)
        with torch.no_grad():
            assert model.decode(learning, points, 40, out=out) is out
    tiles, frames, _ = flow()
    tiles.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"as rows of shape \(2, 24, 2\) do; got strides .* \(2, 4, 6, 2\). Give a con"
    ):
        tiles.decode(tiles.encode(frames), inputs=frames, out=torch.zeros(2, 4, 7, 2)[:, :, :6])
