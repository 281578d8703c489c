"""Folded models equal plain ones and transformers', on weights that are random in every tensor."""

import pytest
import torch

import perceiver_core
from perceiver_core import OutputPoints, estimate_flow
from perceiver_core.config import PUBLISHED
from perceiver_core.folding import FoldError, cross_attention, fold, queries
from perceiver_core.folding import flow as folded_flow
from perceiver_core.folding.linear import linear
from perceiver_core.output_points import published_chunks

EXACT = 1e-10
POINTS = OutputPoints(torch.tensor([0, 89, 17, 18, 44, 45, 3]), torch.tensor([5, 0, 3]), True)


def sizes_to_fold(sizes, head, **changes):
    """One head where tokens are folded."""
    one = {} if "MaskedLM" in head or "Sequence" in head else {"num_cross_attention_heads": 1}
    return {**sizes, **one, **changes}


@pytest.fixture
def triple(oracle, head, sizes_of):
    """transformers', ours and ours folded."""
    theirs, ours = oracle.pair(sizes_to_fold(sizes_of[head], head), head=head)
    return theirs, ours, fold(ours)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_blocks": 3, "self_attention_widening_factor": 3, "cross_attention_widening_factor": 2},
        {"use_query_residual": False, "hidden_act": "gelu_new", "num_self_attention_heads": 2},
        {"cross_attention_shape_for_attention": "q"},
    ],
    ids=["published", "wider", "no residual", "shaped by queries"],
)
def test_it_equals(oracle, head, sizes_of, changes, batch):
    theirs, ours = oracle.pair(sizes_to_fold(sizes_of[head], head, **changes), head=head, seed=batch)
    inputs, arguments = oracle.heads_inputs(head)
    repeat = [i % 2 for i in range(batch)]
    inputs = {n: x[repeat] for n, x in inputs.items()} if isinstance(inputs, dict) else inputs[repeat]
    folded = fold(ours)
    with torch.no_grad():
        expected = theirs(inputs, **arguments).logits
        latents = theirs.perceiver(inputs, **arguments).last_hidden_state
    assert oracle.error(folded.encode(inputs), latents) <= EXACT
    assert oracle.worst(folded(inputs, **arguments).logits, expected) <= EXACT


def test_masks(oracle, head, triple):
    theirs, ours, folded = triple
    inputs, arguments = oracle.heads_inputs(head)
    with torch.no_grad():
        tokens = ours.perceiver.input_preprocessor(inputs)[0].shape[1]
        mask = torch.ones(2, tokens)
        mask[0, 3:9] = 0
        for second in (1, 0):  # then nothing is left of the second: uniform, not NaN
            mask[1] = second
            expected = theirs(inputs, attention_mask=mask, **arguments).logits
            got = folded(inputs, mask, arguments.get("subsampled_output_points")).logits
            assert oracle.worst(got, expected) <= EXACT


def test_masks_of_another_shape(oracle, head, triple):
    _, _, folded = triple
    inputs, _ = oracle.heads_inputs(head)
    with pytest.raises(
        ValueError, match=r"attention_mask must have shape \(2, \d+\); got \(2, 3\). Give one number"
    ):
        folded.encode(inputs, torch.ones(2, 3))


def test_float32(oracle, head, triple):
    theirs, ours, _ = triple
    inputs, arguments = oracle.heads_inputs(head, torch.float32)
    with torch.no_grad():
        expected = theirs.float()(inputs, **arguments).logits
    assert oracle.worst(fold(ours.float())(inputs, **arguments).logits, expected) <= 2e-5


def test_bfloat16_is_as_near_to_float32_as_the_plain_model(oracle, head, sizes_of):
    _, ours = oracle.pair(sizes_to_fold(sizes_of[head], head, num_blocks=1), head=head)
    inputs, arguments = oracle.heads_inputs(head, torch.float32)
    with torch.no_grad():
        expected = ours.float()(inputs, **arguments).logits
        ours.to(torch.bfloat16)
        if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
            inputs = inputs.to(torch.bfloat16)
        got = fold(ours)(inputs, **arguments).logits
    got, expected = (x if isinstance(x, dict) else {"": x} for x in (got, expected))
    assert all(tensor.dtype == torch.bfloat16 for tensor in got.values())
    assert max(oracle.error(got[n].float(), expected[n]) for n in expected) <= 0.05


def test_float32_folded_to_bfloat16(oracle, head, sizes_of):
    _, ours = oracle.pair(sizes_to_fold(sizes_of[head], head, num_blocks=1), head=head)
    ours.float()
    inputs, arguments = oracle.heads_inputs(head, torch.float32)
    with torch.no_grad():
        expected = ours(inputs, **arguments).logits
    got = fold(ours, torch.bfloat16)(inputs, **arguments).logits
    got, expected = (x if isinstance(x, dict) else {"": x} for x in (got, expected))
    assert all(tensor.dtype == torch.bfloat16 for tensor in got.values())
    assert max(oracle.error(got[n].float(), expected[n]) for n in expected) <= 0.03
    assert ours.dtype == torch.float32


@pytest.mark.parametrize("kind", ["all", "labels", "points", "image", "audio"])
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 500])
def test_every_kind_of_points(oracle, kind, chunk_size):
    _, ours = oracle.pair(oracle.tiny())
    points = {
        "all": None,
        "labels": OutputPoints.labels_only(),
        "points": POINTS,
        "image": OutputPoints(torch.tensor([88, 0]), None, False),
        "audio": OutputPoints(None, torch.tensor([4, 4, 0]), False),
    }[kind]
    with torch.no_grad():
        latents = ours.encode(oracle.inputs(oracle.tiny(), batch=3))
        expected = ours.decode(latents, points)
    assert oracle.worst(fold(ours).decode(latents, points, chunk_size), expected) <= EXACT


def test_blocks(oracle, sizes_of, monkeypatch):
    """Scores, points and tokens in pieces, as at published sizes."""
    for module, name in ((queries, "BLOCK"), (folded_flow, "BLOCK")):
        monkeypatch.setattr(module, name, {"cpu": 4})
    monkeypatch.setattr("perceiver_core.folding.multimodal.BLOCK", {"cpu": 4})
    monkeypatch.setattr(cross_attention, "SCORE_BYTES", {"cpu": 1})
    for head, sizes in sizes_of.items():
        _, ours = oracle.pair({**sizes_to_fold(sizes, head), "num_latents": 19}, head=head)
        inputs, arguments = oracle.heads_inputs(head)
        with torch.no_grad():
            expected = ours(inputs, **arguments).logits
        assert oracle.worst(fold(ours)(inputs, **arguments).logits, expected) <= EXACT


def test_a_clips_numbers_do_not_depend_on_its_batch(oracle):
    _, ours = oracle.pair(oracle.tiny())
    folded = fold(ours.float())
    latents = torch.randn(5, 6, 16)
    whole = folded.decode(latents)
    alone = folded.decode(latents[3:4])
    assert all(torch.equal(whole[name][3:4], alone[name]) for name in whole)


def test_every_constructor_of_points(oracle):
    _, ours = oracle.pair(oracle.tiny())
    folded = fold(ours)
    with torch.no_grad():
        latents = ours.encode(oracle.inputs(oracle.tiny(), batch=2))
        for points in (
            OutputPoints.grid(ours.config, 2),
            OutputPoints.frames(ours.config, [1]),
            OutputPoints.region(ours.config, 1, 2, 3, 4),
            OutputPoints.random(ours.config, 11, seed=3),
        ):
            assert oracle.worst(folded.decode(latents, points), ours.decode(latents, points)) <= EXACT


def test_out(oracle, sizes_of):
    _, ours = oracle.pair(oracle.tiny())
    folded = fold(ours)
    latents = torch.randn(2, 6, 16, dtype=torch.float64)
    expected = folded.decode(latents)
    out = {name: torch.full_like(x, torch.nan) for name, x in expected.items()}
    got = folded.decode(latents, out=out)
    assert all(got[name].data_ptr() == out[name].data_ptr() for name in out)
    assert oracle.worst(out, expected) == 0
    with pytest.raises(
        ValueError, match=r"out must have a tensor for each of \['audio', 'image', 'label'\].*got \['image"
    ):
        folded.decode(latents, out={"image": out["image"]})
    with pytest.raises(ValueError, match=r"out\['image'\] must have shape \(2, 90, 3\); got \(2, 89, 3\)"):
        folded.decode(latents, out={**out, "image": out["image"][:, 1:]})
    with pytest.raises(
        ValueError, match=r"image points must have shape \(points,\), the same for every clip; got \(2, 3"
    ):
        folded.decode(latents, {"image": torch.zeros(2, 3).long()})
    head = "PerceiverForOpticalFlow"
    _, ours = oracle.pair(sizes_of[head], head=head)
    folded = fold(ours)
    patches, _ = oracle.heads_inputs(head)
    latents = folded.encode(patches)
    flow = torch.empty(2, 5, 7, 2)
    folded.decode(latents, inputs=patches, out=flow)
    assert oracle.error(flow.double(), folded.decode(latents, inputs=patches)) <= 1e-6


def test_rows_of_text(oracle, sizes_of):
    _, ours = oracle.pair(sizes_of["PerceiverForMaskedLM"], head="PerceiverForMaskedLM")
    ids, _ = oracle.heads_inputs("PerceiverForMaskedLM")
    mask = torch.ones(2, 13)
    mask[0, 5:] = 0
    rows = torch.tensor([[20, 3], [0, 7]])
    with torch.no_grad():
        expected = ours(ids, attention_mask=mask, subsampled_output_points=rows).logits
    assert oracle.error(fold(ours)(ids, mask, rows).logits, expected) <= EXACT


def test_flow(oracle, sizes_of):
    head = "PerceiverForOpticalFlow"
    _, ours = oracle.pair({**sizes_of[head], "train_size": (25, 27)}, head=head)
    frames = torch.rand(1, 2, 3, 31, 40)
    assert oracle.error(estimate_flow(fold(ours), frames), estimate_flow(ours, frames)) <= 1e-6
    patches = torch.randn(2, 2, 27, 25, 27, dtype=torch.float64)
    folded = fold(ours)
    latents = folded.encode(patches)
    for rows in (torch.tensor([674, 0, 5]), torch.tensor([[1, 2], [600, 3]])):
        with torch.no_grad():
            expected = ours.decode(latents, rows, inputs=patches)
        assert oracle.error(folded.decode(latents, rows, inputs=patches), expected) <= EXACT
    with pytest.raises(ValueError, match=r"decode.* must be given `inputs` too; got None"):
        folded.decode(latents)
    with pytest.raises(ValueError, match=r"every position of an input of \(25, 27\); got one of \(25, 28\)"):
        folded.decode(latents, inputs=torch.randn(2, 2, 27, 25, 28).double())


def test_images_of_several_sizes(oracle, sizes_of):
    _, ours = oracle.pair(
        sizes_of["PerceiverForImageClassificationFourier"], head="PerceiverForImageClassificationFourier"
    )
    folded = fold(ours)
    constants = []
    for size in [(4, 11), (6, 9), (4, 11), (9, 5), (6, 9)]:
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            assert oracle.error(folded(images).logits, ours(images).logits) <= EXACT
        constants.append(folded.constants_bytes())
    assert constants[0] < constants[1] == constants[2]  # those of two sizes are kept, and no more
    assert max(constants) - constants[0] <= constants[1]


def test_low_variance(oracle):
    """Tokens and hidden units whose variance eps of 1e-5 rules."""
    _, ours = oracle.pair(oracle.tiny())
    with torch.no_grad():
        ours.perceiver.decoder.decoder.decoding_cross_attention.attention.output.dense.weight *= 1e-4
        ours.perceiver.decoder.decoder.decoding_cross_attention.attention.output.dense.bias *= 1e-4
        inputs = oracle.inputs(oracle.tiny())
        expected = ours(inputs).logits
    assert oracle.worst(fold(ours)(inputs).logits, expected) <= EXACT


def test_changed_weights_are_refused(oracle, head, triple):
    _, ours, folded = triple
    inputs, arguments = oracle.heads_inputs(head)
    folded(inputs, **arguments)
    with torch.no_grad():
        ours.perceiver.embeddings.latents[0, 0] += 1
    with pytest.raises(
        FoldError, match=r"must be those that were folded; they have changed since, or moved. Call fold"
    ):
        folded.encode(inputs)
    folded = fold(ours)
    folded(inputs, **arguments)
    ours.load_state_dict(ours.state_dict())
    with pytest.raises(FoldError, match="have changed since"):
        folded(inputs, **arguments)
    folded = fold(ours)
    ours.float()
    with pytest.raises(FoldError, match="or moved"):
        folded.decode(torch.zeros(1, 6, 16))


def test_what_cannot_be_folded(oracle, sizes_of):
    image = "PerceiverForImageClassificationFourier"
    _, ours = oracle.pair(
        {
            **sizes_of[image],
            "num_cross_attention_heads": 3,
            "qk_channels": 12,
            "v_channels": 12,
            "d_latents": 12,
        },
        head=image,
    )
    with pytest.raises(
        FoldError, match=r"encoder's cross-attention must have 1 head to be folded; got 3. Use the plain"
    ):
        fold(ours)
    with pytest.raises(
        FoldError, match=r"must be in eval mode; got training mode, with dropout. Call model.eval"
    ):
        fold(ours.train())
    with pytest.raises(FoldError, match=r"takes one of PerceiverForImage.*; got Linear. Use the plain model"):
        fold(torch.nn.Linear(2, 2))
    _, ours = oracle.pair(oracle.tiny())
    ours.perceiver.input_preprocessor.mask_probs["audio"] = 0.5
    with pytest.raises(
        FoldError, match=r"audio is masked with probability 0.5: tokens that are drawn anew in every call"
    ):
        fold(ours).encode(oracle.inputs(oracle.tiny()))
    with pytest.raises(ValueError, match=r"must have the keys \['audio', 'image'\]"):
        fold(ours).encode({})
    with pytest.raises(
        ValueError, match=r"must be from 0 to 89, flat indices into \(2, 5, 9\); got 90 to 90"
    ):
        fold(ours).decode(torch.zeros(1, 6, 16).double(), {"image": torch.tensor([90])})


def test_no_gradients(oracle):
    _, ours = oracle.pair(oracle.tiny())
    folded = fold(ours)
    assert all(p.requires_grad for p in ours.parameters())
    latents = folded.encode(oracle.inputs(oracle.tiny()))
    assert not latents.requires_grad
    assert not any(x.requires_grad for x in folded.decode(latents).values())


def test_constants_are_counted(oracle):
    _, ours = oracle.pair(oracle.tiny())
    folded = fold(ours)
    before = folded.constants_bytes()
    folded.encode(oracle.inputs(oracle.tiny()))
    weights = sum(p.numel() for p in ours.parameters()) * 8
    assert 0 < before < folded.constants_bytes() < 5 * weights


def test_linear_is_linear():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 7, 5), torch.randn(4, 5), torch.randn(4)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 3e-2)):
        arguments = [t.to(dtype) for t in (x, weight, bias)]
        got = linear(*arguments)
        assert got.dtype == dtype
        torch.testing.assert_close(
            got.double(), x.double() @ weight.double().T + bias.double(), rtol=tolerance, atol=tolerance
        )
    torch.testing.assert_close(linear(x[..., 1:], weight[:, 1:]), x[..., 1:] @ weight[:, 1:].T)


def test_deepminds_reference(oracle, sizes_of):
    for head in ("PerceiverForMaskedLM", "PerceiverForImageClassificationConvProcessing"):
        _, ours = oracle.pair(sizes_to_fold(sizes_of[head], head), head=head, reference="deepmind")
        inputs, _ = oracle.heads_inputs(head)
        mask = None
        if head == "PerceiverForMaskedLM":
            mask = torch.ones(2, 13)
            mask[1, 4:] = 0
        with torch.no_grad():
            expected = ours(inputs, attention_mask=mask).logits
        assert oracle.error(fold(ours)(inputs, mask).logits, expected) <= EXACT


def published(oracle, name, dtype):
    sizes = PUBLISHED[name]
    ours = getattr(perceiver_core, sizes.architecture)(sizes.config).double().eval()
    oracle.randomise(ours)
    return ours.to(dtype)


INPUTS = {
    "deepmind/language-perceiver": lambda: torch.randint(6, 262, (2, 700)),
    "deepmind/vision-perceiver-learned": lambda: torch.randn(1, 3, 224, 224).double(),
    "deepmind/vision-perceiver-fourier": lambda: torch.randn(1, 3, 224, 224).double(),
    "deepmind/vision-perceiver-conv": lambda: torch.randn(1, 3, 224, 224).double(),
    "deepmind/optical-flow-perceiver": lambda: torch.randn(1, 2, 27, 368, 496).double(),
}


@pytest.mark.published
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", INPUTS)
def test_published_sizes(oracle, name, dtype, tolerance, one_thread):
    torch.set_num_threads(one_thread)
    ours = published(oracle, name, dtype)
    inputs = INPUTS[name]()
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    with torch.no_grad():
        expected = ours(inputs).logits
    assert oracle.error(fold(ours)(inputs).logits, expected) <= tolerance
    if dtype == torch.float32:
        assert oracle.error(fold(ours, torch.bfloat16)(inputs).logits.float(), expected) <= 1e-2


@pytest.mark.published
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_published_size_of_the_multimodal_model(oracle, dtype, tolerance, one_thread):
    torch.set_num_threads(one_thread)
    ours = published(oracle, "deepmind/multimodal-perceiver", dtype)
    inputs = oracle.inputs({"num_labels": 700}, image=(16, 224, 224), samples=30720, dtype=dtype)
    chunk = list(published_chunks(ours.config))[77]
    folded = fold(ours)
    with torch.no_grad():
        expected = ours.encode(inputs)
        assert oracle.error(folded.encode(inputs), expected) <= tolerance
        plain = ours.decode(expected, chunk)
    assert oracle.worst(folded.decode(expected, chunk), plain) <= tolerance
    if dtype == torch.float32:
        half = fold(ours, torch.bfloat16)
        got = half.decode(half.encode(inputs), chunk)
        assert oracle.worst({name: x.float() for name, x in got.items()}, plain) <= 1e-2
