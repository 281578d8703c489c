"""reference="deepmind": the six differences from upstream, each on its own, against its formula."""

import math

import pytest
import torch
from torch import nn

from perceiver_core import (
    PerceiverConfig,
    PerceiverForImageClassificationConvProcessing,
    PerceiverForImageClassificationLearned,
    PerceiverForMaskedLM,
    PerceiverForSequenceClassification,
)
from perceiver_core.attention import MLP
from perceiver_core.image_preprocessor import Conv2DDownsample

SIZES = {
    "num_latents": 6,
    "d_latents": 16,
    "d_model": 24,
    "num_self_attends_per_block": 1,
    "num_cross_attention_heads": 1,
    "max_position_embeddings": 9,
    "image_size": 5,
    "initializer_range": 0.5,
    "num_labels": 5,
}


def pair(head, **changes):
    """The same weights with upstream's reference and with the original model's."""
    torch.manual_seed(0)
    upstream = head(PerceiverConfig(**SIZES, **changes)).double().eval().requires_grad_(False)
    for parameter in upstream.parameters():
        if parameter.ndim == 1:  # biases and normalisations say nothing at their initial values
            parameter.add_(0.3 * torch.randn_like(parameter))
    original = head(PerceiverConfig(**SIZES, **changes, reference="deepmind")).double().eval()
    original.load_state_dict(upstream.state_dict(), strict=True)
    return upstream, original.requires_grad_(False)


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_1_gelu_is_the_tanh_approximation():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    upstream, original = (
        MLP(1, 1, PerceiverConfig(reference=reference)).activation for reference in ("hf", "deepmind")
    )
    close(original(x), 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    close(upstream(x), 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))
    relu = MLP(1, 1, PerceiverConfig(reference="deepmind", hidden_act="relu")).activation
    assert torch.equal(relu(x), x.clamp(min=0))  # only the default is the original model's own


def same_convolution(x, kernel):
    """TensorFlow's SAME convolution of stride 2, one output at a time; kernel (O, I, rows, columns)."""
    size = kernel.shape[-1]
    height, width = (-(-n // 2) for n in x.shape[-2:])
    before = [max((-(-n // 2) - 1) * 2 + size - n, 0) // 2 for n in x.shape[-2:]]
    out = x.new_zeros(x.shape[0], kernel.shape[0], height, width)
    for i in range(height):
        for j in range(width):
            for a in range(size):
                for b in range(size):
                    y, z = 2 * i + a - before[0], 2 * j + b - before[1]
                    if 0 <= y < x.shape[-2] and 0 <= z < x.shape[-1]:
                        out[..., i, j] += x[..., y, z] @ kernel[:, :, a, b].T
    return out


@pytest.mark.parametrize("size", [(8, 12), (9, 11), (8, 7)])
def test_2_and_3_convolution(size):
    net = Conv2DDownsample(PerceiverConfig(reference="deepmind"), 3, 4).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pooled = []
    net.batchnorm = nn.Identity()
    net.register_forward_hook(lambda module, inputs, output: pooled.append(output))
    # upstream's conversion stored the kernel as (O, I, columns, rows)
    convolved = same_convolution(x, net.conv.weight.detach().transpose(2, 3)).relu()
    expected = [
        [
            convolved[..., max(2 * i - top, 0) : 2 * i - top + 3, max(2 * j - left, 0) : 2 * j - left + 3]
            .flatten(2)
            .amax(2)
            for j in range(-(-convolved.shape[-1] // 2))
        ]
        for i in range(-(-convolved.shape[-2] // 2))
        for top, left in [[1 if n % 2 else 0 for n in convolved.shape[-2:]]]
    ]
    close(net(x), torch.stack([torch.stack(row, -1) for row in expected], -2))


def test_3_padding_of_the_convolution_alone():
    # a kernel that is symmetric has no transpose to get wrong; stride 2 on an even size starts a pixel later
    upstream, original = (
        Conv2DDownsample(PerceiverConfig(reference=reference), 1, 1, use_batchnorm=False)
        for reference in ("hf", "deepmind")
    )
    for net in (upstream, original):
        net.conv.weight.data.zero_()
        net.conv.weight.data[..., 3, 3] = 1  # the kernel's centre
    x = torch.arange(1.0, 17.0).expand(1, 1, 16, 16)
    # centres at 0, 2, 4 ... with upstream's padding of 3, at 1, 3, 5 ... with (2, 3); then maxima of three
    assert upstream(x)[0, 0, 0].tolist() == [5.0, 9.0, 13.0]
    assert original(x)[0, 0, 0].tolist() == [6.0, 10.0, 14.0, 16.0]


def test_4_tokens_of_the_published_size():
    upstream, original = pair(PerceiverForImageClassificationConvProcessing)
    image = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    assert upstream.perceiver.input_preprocessor(image).inputs.shape == (1, 55 * 55, 322)
    assert original.perceiver.input_preprocessor(image).inputs.shape == (1, 56 * 56, 322)


def test_5_the_learned_models_decoder_has_no_residual():
    upstream, original = pair(PerceiverForImageClassificationLearned, hidden_act="gelu_pytorch_tanh")
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    latents = original.encode(images)
    close(latents, upstream.encode(images))
    expected = upstream.decode(latents)
    upstream.perceiver.decoder.decoder.decoding_cross_attention.use_query_residual = False
    close(original.decode(latents), upstream.decode(latents))
    assert (expected - original.decode(latents)).abs().max() > 0.1
    # the other heads keep theirs
    upstream, original = pair(PerceiverForSequenceClassification, hidden_act="gelu_pytorch_tanh")
    ids = torch.randint(0, 262, (2, 7))
    close(original(ids).logits, upstream(ids).logits)


def test_6_queries_of_padding_attend_to_nothing():
    upstream, original = pair(PerceiverForMaskedLM, hidden_act="gelu_pytorch_tanh")
    ids = torch.randint(0, 262, (2, 7))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]])
    got, whole = (model(ids, attention_mask=mask).logits for model in (original, upstream))
    kept = torch.nn.functional.pad(mask, (0, 2)).bool()  # positions past the input are padding too
    close(got[kept], whole[kept])
    layer = original.perceiver.decoder.decoding_cross_attention
    bias = layer.attention.output.dense.bias  # what is left of an attention to nothing
    row = bias + layer.mlp(layer.layernorm(bias))
    text = original.perceiver.input_preprocessor
    expected = text.embeddings.weight @ row + original.embedding_decoder.bias
    close(got[~kept], expected.expand(int((~kept).sum()), -1))
    # whatever is asked for, and in whatever pieces
    latents = original.encode(ids, mask)
    rows = torch.tensor([[8, 2, 3], [5, 6, 0]])
    some = original.decode(latents, rows, attention_mask=mask)
    close(some, torch.stack([got[0, rows[0]], got[1, rows[1]]]))
    close(original.decode(latents, rows, chunk_size=2, attention_mask=mask), some)
    close(original.decode(latents, chunk_size=4, attention_mask=mask), got)
    close(original.decode(latents, rows[0], attention_mask=mask), got[:, rows[0]])
    close(original(ids).logits, upstream(ids).logits)  # no mask, no difference


def test_the_weights_are_the_same_files(tmp_path):
    upstream, original = pair(PerceiverForImageClassificationConvProcessing)
    image = torch.randn(1, 3, 40, 33, dtype=torch.float64)
    assert (upstream(image).logits - original(image).logits).abs().max() > 1e-3
    assert upstream.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(original.state_dict()[name], x) for name, x in upstream.state_dict().items())
