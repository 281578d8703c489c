"""The training loss of multimodal autoencoding."""

from dataclasses import replace

import pytest
import torch

from perceiver_core import OutputPoints, PerceiverForMultimodalAutoencoding
from perceiver_core.losses import PUBLISHED_WEIGHTS, autoencoding_loss


@pytest.fixture
def square_inputs(config):
    """Inputs of the size of the output: 2 frames of 8 x 12, 42 samples."""
    torch.manual_seed(1)
    return {"image": torch.rand(3, 2, 3, 8, 12), "audio": torch.rand(3, 42, 1) * 2 - 1}


def test_it_is_the_weighted_sum_by_hand(square_inputs):
    points = OutputPoints(torch.tensor([0, 95, 96, 191, 17]), torch.tensor([5, 0]), True)
    logits = {"image": torch.rand(3, 5, 3), "audio": torch.rand(3, 14), "label": torch.rand(3, 5)}
    labels = torch.tensor([4, 0, 2])
    image, audio = square_inputs["image"], square_inputs["audio"]
    by_hand = 0.0
    for b in range(3):
        for n, flat in enumerate([0, 95, 96, 191, 17]):
            t, y, x = flat // 96, flat % 96 // 12, flat % 12
            for c in range(3):
                by_hand += 0.03 * abs(logits["image"][b, n, c] - image[b, t, c, y, x]) / 45
        for n, patch in enumerate([5, 0]):
            for s in range(7):
                by_hand += 1.0 * abs(logits["audio"][b, n * 7 + s] - audio[b, patch * 7 + s, 0]) / 42
        by_hand += 0.0001 * -torch.log_softmax(logits["label"][b], -1)[labels[b]] / 3
    loss = autoencoding_loss(logits, square_inputs, points, labels)
    torch.testing.assert_close(loss, by_hand)


def test_forward_gives_it_with_labels(model, config, square_inputs):
    with pytest.raises(ValueError, match=r"must have frames, height and width \(2, 5, 9\).*got \(2, 8, 12\)"):
        model(square_inputs, labels=torch.tensor([0, 1, 2]))
    model = PerceiverForMultimodalAutoencoding(replace(config, output_shape=(1, 2, 8, 12))).eval()
    asked = {"image": torch.arange(0, 192, 5), "audio": torch.arange(6), "label": None}
    labels = torch.tensor([0, 1, 2])
    output = model(square_inputs, subsampled_output_points=asked, labels=labels)
    expected = autoencoding_loss(output.logits, square_inputs, OutputPoints.from_hf(asked), labels)
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.perceiver.embeddings.latents.grad.abs().sum() > 0
    as_tuple = model(square_inputs, subsampled_output_points=asked, labels=labels, return_dict=False)
    torch.testing.assert_close(as_tuple[0], expected)
    whole = model(square_inputs, labels=labels)
    assert whole.logits["image"].shape == (3, 192, 3)
    assert model(square_inputs).loss is None


def test_targets_of_another_size_are_refused(square_inputs):
    logits = {"image": torch.rand(3, 2, 3), "audio": torch.rand(3, 7), "label": torch.rand(3, 5)}
    points = OutputPoints(torch.tensor([0, 1]), torch.tensor([0]), True)
    square_inputs["image"] = square_inputs["image"][:2]
    message = r"The image input gives targets of shape \(2, 2, 3\), but \(3, 2, 3\) were decoded"
    with pytest.raises(ValueError, match=message):
        autoencoding_loss(logits, square_inputs, points, torch.tensor([0, 0, 0]))


def test_the_published_weights():
    assert PUBLISHED_WEIGHTS == {"image": 0.03, "audio": 1.0, "label": 0.0001}
