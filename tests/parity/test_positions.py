"""Position encodings equal transformers', to the last bit."""

import pytest
import torch
import transformers
from transformers.models.perceiver import modeling_perceiver as hf

from perceiver_core import PerceiverConfig, decoders, positions


@pytest.mark.parametrize(
    ("index_dims", "options"),
    [
        ((1920,), {"num_bands": 192, "max_resolution": (30720,)}),
        ((16, 56, 56), {"num_bands": 32, "max_resolution": (16, 56, 56)}),
        ((5, 1, 7), {"num_bands": 3, "max_resolution": (16, 9, 11)}),
        ((7, 4), {"num_bands": 5, "max_resolution": (8, 9), "concat_pos": False}),
        ((7, 4), {"num_bands": 5, "max_resolution": (8, 9), "sine_only": True}),
    ],
)
def test_fourier_features_are_bit_exact(index_dims, options):
    theirs = hf.PerceiverFourierPositionEncoding(**options)
    ours = positions.PerceiverFourierPositionEncoding(**options)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        expected = theirs(index_dims, batch_size=1, device=torch.device("cpu"), dtype=dtype)
        expected = expected.reshape(-1, ours.output_size())  # upstream has no batch if concat_pos is False
        assert torch.equal(ours.of_inputs(index_dims, torch.device("cpu")).to(dtype), expected)
    assert ours.output_size() == theirs.output_size()


@pytest.mark.parametrize("index_dims", [(16, 224, 224), (1920,)])
def test_query_features_are_bit_exact(index_dims):
    options = {"num_bands": 64, "max_resolution": (30720,) if len(index_dims) == 1 else (16, 56, 56)}
    arguments = {
        "output_num_channels": 4,
        "position_encoding_type": "fourier",
        "output_index_dims": index_dims,
        "position_encoding_only": True,
        "fourier_position_encoding_kwargs": options,
    }
    theirs = hf.PerceiverBasicDecoder(transformers.PerceiverConfig(), **arguments)
    ours = decoders.PerceiverBasicDecoder(PerceiverConfig(), **arguments)
    last = torch.tensor(index_dims).prod().item() - 1
    indices = torch.cat([torch.tensor([0, last]), torch.randint(0, last, (5000,))])
    expected = theirs.decoder_query(torch.zeros(1, 1, 1), subsampled_points=indices)[0]
    sample = torch.zeros(1, 1, 1)
    for points in (indices, indices.int()):
        assert torch.equal(ours.decoder_query(sample, subsampled_points=points)[0], expected)
    if len(index_dims) == 1:
        arguments["output_index_dims"] = index_dims[0]
        flat = decoders.PerceiverBasicDecoder(PerceiverConfig(), **arguments)
        assert torch.equal(flat.decoder_query(sample, subsampled_points=indices)[0], expected)
