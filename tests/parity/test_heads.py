"""The seven heads equal transformers', in everything that can be asked of them."""

import pytest
import torch

from perceiver_core import PerceiverConfig, PerceiverForImageClassificationLearned
from perceiver_core.positions import PerceiverTrainablePositionEncoding

EXACT = 1e-10
LABELS = {  # of each head that upstream gives a loss
    "PerceiverForMaskedLM": lambda g: torch.randint(0, 262, (2, 21), generator=g),
    "PerceiverForSequenceClassification": lambda g: torch.tensor([4, 1]),
    "PerceiverForImageClassificationLearned": lambda g: torch.tensor([4, 1]),
    "PerceiverForImageClassificationFourier": lambda g: torch.tensor([0, 3]),
    "PerceiverForImageClassificationConvProcessing": lambda g: torch.tensor([2, 2]),
}
VARIANTS = {
    "as_published": {},
    "queries_shape_the_attention": {
        "cross_attention_shape_for_attention": "q",
        "num_cross_attention_heads": 2,
        "self_attention_widening_factor": 2,
        "cross_attention_widening_factor": 3,
        "use_query_residual": False,
        "num_blocks": 3,
        "num_self_attends_per_block": 1,
    },
    "own_channels_and_one_label": {
        "qk_channels": 24,
        "v_channels": 16,
        "num_self_attention_heads": 8,
        "num_cross_attention_heads": 8,
        "num_labels": 1,
        "hidden_act": "gelu_new",
    },
    "relu": {"hidden_act": "relu", "num_blocks": 1},
}


@pytest.fixture
def pair(oracle, head, sizes_of):
    return oracle.pair(sizes_of[head], head=head)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_output_equals(oracle, head, sizes_of, variant):
    theirs, ours = oracle.pair({**sizes_of[head], **VARIANTS[variant]}, head=head, seed=2)
    inputs, arguments = oracle.heads_inputs(head)
    if isinstance(inputs, dict):
        inputs["label"] = inputs["label"][:, : ours.config.num_labels]
    with torch.no_grad():
        plain = theirs(inputs, **arguments).logits
        assert oracle.worst(ours(inputs, **arguments).logits, plain) <= EXACT  # fused attention
        arguments |= {"output_attentions": True, "output_hidden_states": True}
        expected, got = theirs(inputs, **arguments), ours(inputs, **arguments)
        assert oracle.worst(got, expected) <= EXACT
        states = [theirs.perceiver(inputs, **arguments), ours.perceiver(inputs, **arguments)]
    assert oracle.error(states[1].last_hidden_state, states[0].last_hidden_state) <= EXACT
    assert len(got.hidden_states) == (ours.config.num_self_attends_per_block + 1) * ours.config.num_blocks
    assert len(got.cross_attentions) == 2


def test_tuples(oracle, head, pair):
    theirs, ours = pair
    inputs, arguments = oracle.heads_inputs(head)
    for flags in (
        {},
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"output_attentions": True, "output_hidden_states": True},
    ):
        options = {**arguments, **flags, "return_dict": False}
        with torch.no_grad():
            for their_model, our_model in ((theirs, ours), (theirs.perceiver, ours.perceiver)):
                expected, got = their_model(inputs, **options), our_model(inputs, **options)
                assert isinstance(got, tuple)
                assert oracle.worst(got, expected) <= EXACT


def test_options_come_from_the_config(oracle, head, sizes_of):
    sizes = {**sizes_of[head], "output_attentions": True, "output_hidden_states": True, "return_dict": False}
    theirs, ours = oracle.pair(sizes, head=head)
    inputs, arguments = oracle.heads_inputs(head)
    with torch.no_grad():
        assert oracle.worst(ours(inputs, **arguments), theirs(inputs, **arguments)) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float64, torch.long, torch.bool])
def test_attention_mask(oracle, head, pair, dtype):
    theirs, ours = pair
    inputs, arguments = oracle.heads_inputs(head)
    with torch.no_grad():
        tokens = ours.perceiver.input_preprocessor(inputs)[0].shape[1]
        mask = torch.ones(2, tokens)
        mask[0, 3:9] = 0
        mask[1] = 0  # nothing to attend to: uniform, not NaN
        arguments |= {"attention_mask": mask.to(dtype), "output_attentions": True}
        expected, got = theirs(inputs, **arguments), ours(inputs, **arguments)
        assert oracle.worst(got, expected) <= EXACT
        arguments["output_attentions"] = False
        assert oracle.worst(ours(inputs, **arguments).logits, expected.logits) <= EXACT


@pytest.mark.parametrize("shape", ["heads", "layers of a block", "layers of all blocks"])
def test_head_mask_is_a_head_without_output(oracle, head, pair, shape):
    # transformers 5 has no head_mask any more: there, what a head says is scaled on its way out
    theirs, ours = pair
    inputs, arguments = oracle.heads_inputs(head)
    heads = torch.tensor([[1.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 0.0]])
    rows = heads[:1].expand(2, -1) if shape == "heads" else heads
    for layer, row in zip(theirs.perceiver.encoder.self_attends, rows, strict=True):
        weight = layer.attention.output.dense.weight
        with torch.no_grad():
            weight *= row.repeat_interleave(weight.shape[1] // 4)
    mask = {"heads": heads[0], "layers of a block": heads, "layers of all blocks": heads.repeat(2, 1)}[shape]
    with torch.no_grad():
        expected = theirs(inputs, **arguments, output_attentions=True)
        got = ours(inputs, **arguments, head_mask=mask, output_attentions=True)
        assert oracle.worst(got.logits, expected.logits) <= EXACT
        fused = ours(inputs, **arguments, head_mask=mask).logits
        assert oracle.worst(fused, expected.logits) <= EXACT
    scaled = [
        m * row[:, None, None] for m, row in zip(expected.attentions, rows.repeat(2, 1).double(), strict=True)
    ]
    assert oracle.worst(got.attentions, scaled) <= EXACT


def test_head_masks_of_blocks_may_differ(oracle, sizes_of):
    head = "PerceiverForSequenceClassification"
    _, ours = oracle.pair(sizes_of[head], head=head)
    ids, _ = oracle.heads_inputs(head)
    mask = torch.ones(4, 4)
    mask[3, 1] = 0  # the second block's second layer
    with torch.no_grad():
        whole, masked = (ours(ids, head_mask=m, output_hidden_states=True) for m in (None, mask))
    assert oracle.worst(masked.hidden_states[:5], whole.hidden_states[:5]) <= EXACT
    assert oracle.error(masked.hidden_states[5], whole.hidden_states[5]) > 1e-3
    with pytest.raises(
        ValueError, match=r"head_mask must have shape \(4,\), \(2, 4\) or \(4, 4\).*got \(3,\)"
    ):
        ours(ids, head_mask=torch.ones(3))


def test_float32(oracle, head, pair):
    theirs, ours = (model.float() for model in pair)
    inputs, arguments = oracle.heads_inputs(head, torch.float32)
    with torch.no_grad():
        assert oracle.worst(ours(inputs, **arguments).logits, theirs(inputs, **arguments).logits) <= 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.006)])
def test_half_precision_equals_float32(oracle, head, sizes_of, dtype, tolerance):
    # ours in float32 is the oracle: transformers' multimodal model fails in half precision
    _, ours = oracle.pair({**sizes_of[head], "num_blocks": 1}, head=head)
    inputs, arguments = oracle.heads_inputs(head, torch.float32)
    with torch.no_grad():
        expected = ours.float()(inputs, **arguments).logits
        ours.to(dtype)
        if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
            inputs = inputs.to(dtype)
        got = ours(inputs, **arguments).logits
    got, expected = (x if isinstance(x, dict) else {"": x} for x in (got, expected))
    assert all(tensor.dtype == dtype for tensor in got.values())
    errors = {name: oracle.error(got[name].float(), expected[name]) for name in expected}
    assert max(errors.values()) <= tolerance, errors


def test_gradients(oracle, head, sizes_of):
    sizes = {**sizes_of[head], "attention_probs_dropout_prob": 0.0}
    theirs, ours = (model.train() for model in oracle.pair(sizes, head=head))
    inputs, arguments = oracle.heads_inputs(head)
    for model in (theirs, ours):
        logits = model(inputs, **arguments).logits
        tensors = logits.values() if isinstance(logits, dict) else [logits]
        sum((tensor * torch.arange(tensor.numel()).view(tensor.shape)).sum() for tensor in tensors).backward()
    expected = dict(theirs.named_parameters())
    scale = ours.perceiver.embeddings.latents.grad.abs().max()
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:  # never used: upstream multiplies these by zero
            assert not expected[name].grad.any()
            assert name.startswith(
                ("perceiver.input_preprocessor.mask", "perceiver.input_preprocessor.padding.label")
            )
        elif name.endswith("self.key.bias"):  # cancels in the softmax: rounding is all there is
            assert parameter.grad.abs().max() < 1e-8 * scale
        else:
            assert oracle.error(parameter.grad, expected[name].grad) <= EXACT, name
    # running statistics of a batch norm, updated by the forward in train mode
    assert oracle.worst(dict(ours.named_buffers()), dict(theirs.named_buffers())) <= EXACT


@pytest.mark.parametrize("head", LABELS)
def test_losses(oracle, sizes_of, head):
    theirs, ours = oracle.pair(sizes_of[head], head=head)
    inputs, _ = oracle.heads_inputs(head)
    labels = LABELS[head](torch.Generator().manual_seed(0))
    if head == "PerceiverForMaskedLM":
        labels[0, 13:] = -100
    with torch.no_grad():
        for return_dict in (True, False):
            expected = theirs(inputs, labels=labels, return_dict=return_dict)
            got = ours(inputs, labels=labels, return_dict=return_dict)
            assert oracle.worst(got, expected) <= EXACT
    strided = labels.repeat_interleave(2, dim=-1)[..., ::2]  # upstream: .view fails
    assert torch.equal(ours(inputs, labels=strided).loss, got[0])


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [
        (None, 1, torch.tensor([0.3, -2.0])),
        (None, 1, torch.tensor([[0.3], [-2.0]])),
        ("regression", 3, torch.randn(2, 3)),
        (None, 3, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
        ("multi_label_classification", 3, torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
        ("single_label_classification", 3, torch.tensor([2, 0])),
        (None, 3, torch.tensor([2, 0], dtype=torch.int)),
    ],
)
@pytest.mark.parametrize(
    "head", ["PerceiverForSequenceClassification", "PerceiverForImageClassificationFourier"]
)
def test_problem_types(oracle, sizes_of, head, problem_type, num_labels, labels):
    sizes = {**sizes_of[head], "num_labels": num_labels, "problem_type": problem_type}
    theirs, ours = oracle.pair(sizes, head=head)
    inputs, _ = oracle.heads_inputs(head)
    theirs_takes = labels.long() if labels.dtype == torch.int else labels  # its cross-entropy fails on int
    theirs_takes = theirs_takes.double() if labels.is_floating_point() else theirs_takes
    with torch.no_grad():
        expected = theirs(inputs, labels=theirs_takes).loss
        got = ours(inputs, labels=labels.double() if labels.is_floating_point() else labels).loss
    assert oracle.error(got, expected) <= EXACT
    assert ours.config.problem_type == problem_type  # upstream writes what it infers into the shared config


def test_names_of_inputs(oracle, sizes_of):
    for head, name in [
        ("PerceiverForMaskedLM", "input_ids"),
        ("PerceiverForSequenceClassification", "input_ids"),
        ("PerceiverForImageClassificationLearned", "pixel_values"),
        ("PerceiverForImageClassificationConvProcessing", "pixel_values"),
    ]:
        _, ours = oracle.pair(sizes_of[head], head=head)
        inputs, _ = oracle.heads_inputs(head)
        with torch.no_grad():
            assert torch.equal(ours(**{name: inputs}).logits, ours(inputs).logits)
        with pytest.raises(ValueError, match=f"Give exactly one of inputs and {name}; got inputs and {name}"):
            ours(inputs, **{name: inputs})
        with pytest.raises(ValueError, match=f"Give exactly one of inputs and {name}; got neither"):
            ours()


def test_padded_text_equals_short_text(oracle, sizes_of):
    _, ours = oracle.pair(sizes_of["PerceiverForMaskedLM"], head="PerceiverForMaskedLM")
    ids, _ = oracle.heads_inputs("PerceiverForMaskedLM")
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    mask = torch.cat([torch.ones(2, 13), torch.zeros(2, 4)], dim=1)
    with torch.no_grad():
        short, long = ours(ids).logits, ours(padded, attention_mask=mask).logits
    assert short.shape == (2, 21, 262)  # always max_position_embeddings rows
    assert oracle.error(long, short) <= EXACT


def test_rows_asked_for(oracle, sizes_of):
    theirs, ours = oracle.pair(sizes_of["PerceiverForMaskedLM"], head="PerceiverForMaskedLM")
    ids, _ = oracle.heads_inputs("PerceiverForMaskedLM")
    rows = torch.tensor([[20, 3, 3], [0, 7, 11]])
    labels = torch.tensor([[5, 6, -100], [7, 8, 9]])
    with torch.no_grad():
        every = theirs(ids).logits
        shared = ours(ids, subsampled_output_points=rows[0]).logits
        own = ours(ids, subsampled_output_points=rows, labels=labels)
        decoded = ours.decode(ours.encode(ids), rows, chunk_size=2)
    assert oracle.error(shared, every[:, rows[0]]) <= EXACT
    expected = torch.stack([every[0, rows[0]], every[1, rows[1]]])
    assert oracle.error(own.logits, expected) <= EXACT
    assert oracle.error(decoded, expected) <= EXACT
    by_hand = torch.nn.functional.cross_entropy(expected.flatten(0, 1), labels.flatten())
    assert oracle.error(own.loss, by_hand) <= EXACT
    with pytest.raises(
        ValueError, match=r"labels must have shape \(2, 21\), one id for each row.*got \(2, 13\)"
    ):
        ours(ids, labels=ids)


@pytest.mark.parametrize("size", [270, 262, 100])
def test_another_vocabulary(oracle, sizes_of, size):
    for head in ("PerceiverForMaskedLM", "PerceiverForSequenceClassification"):
        _, ours = oracle.pair(sizes_of[head], head=head)
        ids = torch.randint(0, 100, (2, 13))
        with torch.no_grad():
            expected = ours(ids).logits
            embeddings = ours.resize_token_embeddings(size)
            got = ours(ids).logits
        assert embeddings is ours.get_input_embeddings()
        assert ours.config.vocab_size == ours.perceiver.config.vocab_size == len(embeddings.weight) == size
        kept = min(size, 262) if head == "PerceiverForMaskedLM" else 5
        assert oracle.error(got[..., :kept], expected[..., :kept]) <= EXACT
        assert got.shape == (*expected.shape[:-1], size if head == "PerceiverForMaskedLM" else 5)
        reopened = type(ours)(ours.config).double()
        reopened.load_state_dict(ours.state_dict(), strict=True)


def test_images_of_any_size(oracle, sizes_of):
    for head, size in [
        ("PerceiverForImageClassificationFourier", (4, 11)),
        ("PerceiverForImageClassificationConvProcessing", (40, 33)),
        ("PerceiverForImageClassificationConvProcessing", (11, 64)),
    ]:
        theirs, ours = oracle.pair(sizes_of[head], head=head)
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            assert oracle.error(ours(images).logits, theirs(images).logits) <= EXACT


@pytest.mark.parametrize("size", [(7, 7), (9, 9), (5, 13), (14, 3)])
def test_interpolated_positions(oracle, sizes_of, size):
    head = "PerceiverForImageClassificationLearned"
    theirs, ours = oracle.pair(sizes_of[head], head=head)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images, interpolate_pos_encoding=True)
        got = ours(images, interpolate_pos_encoding=True)
        latents = ours.encode(images, interpolate_pos_encoding=True)
    assert oracle.worst(got, expected) <= EXACT
    assert oracle.error(ours.decode(latents), expected.logits) <= EXACT
    if size != (7, 7):
        with pytest.raises(
            ValueError, match=r"has 49 rows, for the grid \(7, 7\); got an input of the grid \("
        ):
            ours(images)


def test_interpolation_of_a_table_that_is_not_square(oracle, sizes_of):
    # upstream takes every table for a square
    head = "PerceiverForImageClassificationLearned"
    config = PerceiverConfig(**{**sizes_of[head], "image_size": (4, 9)})
    ours = PerceiverForImageClassificationLearned(config).double().eval()
    oracle.randomise(ours)
    encoding = ours.perceiver.input_preprocessor.position_embeddings
    grid = encoding.position_embeddings.detach().view(4, 9, 256)
    got = encoding.of_inputs((8, 18), torch.device("cpu"), interpolate=True)
    expected = torch.nn.functional.interpolate(
        grid.permute(2, 0, 1)[None], size=(8, 18), mode="bicubic", align_corners=False
    )[0].permute(1, 2, 0)
    assert torch.equal(got, expected.flatten(0, 1))
    with torch.no_grad():
        assert ours(torch.randn(2, 3, 4, 9).double()).logits.shape == (2, 5)
        images = torch.randn(2, 3, 8, 18).double()
        assert ours(images, interpolate_pos_encoding=True).logits.shape == (2, 5)
    encoding = PerceiverTrainablePositionEncoding(35)
    with pytest.raises(
        ValueError, match=r"Interpolation needs an image and a table of an image; got the grid"
    ):
        encoding.of_inputs((8, 18), torch.device("cpu"), interpolate=True)


def test_flow_points_and_loss(oracle, sizes_of):
    head = "PerceiverForOpticalFlow"
    theirs, ours = oracle.pair(sizes_of[head], head=head)
    patches, _ = oracle.heads_inputs(head)
    points = torch.tensor([34, 0, 8, 8])
    target = torch.randn(2, 5, 7, 2, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(patches).logits
        got = ours(patches, labels=target)
        some = ours(patches, subsampled_output_points=points).logits
        latents = ours.encode(patches)
        chunked = ours.decode(latents, inputs=patches, chunk_size=8)
    assert oracle.error(got.logits, expected) <= EXACT
    assert oracle.error(chunked, expected) <= EXACT
    assert oracle.error(some, expected.flatten(1, 2)[:, points]) <= EXACT
    by_hand = ((20 * expected - target) ** 2).sum(-1).sqrt().mean()
    assert oracle.error(got.loss, by_hand) <= EXACT
    with pytest.raises(
        ValueError, match=r"queries are made of its inputs: decode.* must be given `inputs` too"
    ):
        ours.decode(latents)
    with pytest.raises(
        ValueError, match=r"every position of an input of \(5, 7\), 35 tokens; got tokens of shape"
    ):
        ours(torch.randn(2, 2, 27, 6, 7).double())


def test_everything_is_decoded_without_points(oracle, head, pair):
    _, ours = pair
    inputs, _ = oracle.heads_inputs(head)
    with torch.no_grad():
        whole = ours(inputs).logits
        latents = ours.encode(inputs)
        decoded = ours.decode(latents, inputs=inputs)
        chunked = ours.decode(latents, inputs=inputs, chunk_size=4)
    assert oracle.worst(decoded, whole) <= 1e-12
    assert oracle.worst(chunked, whole) <= EXACT


def test_feed_forward_in_pieces(oracle, head, sizes_of):
    _, ours = oracle.pair(sizes_of[head], head=head)
    _, pieces = oracle.pair(sizes_of[head], head=head, chunk_size_feed_forward=4)  # upstream: must divide
    inputs, arguments = oracle.heads_inputs(head)
    with torch.no_grad():
        assert oracle.worst(pieces(inputs, **arguments).logits, ours(inputs, **arguments).logits) <= EXACT
