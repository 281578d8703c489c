"""Half precision, where transformers cannot be the oracle: its multimodal model fails there. Ours in float32 is."""

import pytest
import torch

POINTS = {"image": torch.tensor([0, 89, 17]), "audio": torch.tensor([5, 0, 3])}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.006)])
def test_half_precision(oracle, dtype, tolerance):
    _, model = oracle.pair(oracle.tiny())
    inputs = oracle.inputs(oracle.tiny(), dtype=torch.float32)
    with torch.no_grad():
        expected = model.float()(inputs, subsampled_output_points=POINTS).logits
        got = model.to(dtype)(
            inputs, subsampled_output_points=POINTS
        ).logits  # inputs follow the model's dtype
    errors = {name: oracle.error(got[name].float(), expected[name]) for name in expected}
    assert all(tensor.dtype == dtype for tensor in got.values())
    assert max(errors.values()) <= tolerance, errors
