"""Tiled flow around transformers' model, against DeepMind's recipe written out tile by tile."""

import numpy as np
import torch
import transformers

from perceiver_core import estimate_flow


def test_tiled_flow(oracle):
    config = transformers.PerceiverConfig(
        num_latents=6,
        d_latents=16,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
        train_size=(9, 14),
        num_frames=2,
    )
    model = transformers.PerceiverForOpticalFlow(config).double().eval()
    oracle.randomise(model)
    frames = torch.randint(
        0, 256, (2, 3, 16, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )

    weights = np.array([[min(x + 1, 14 - x, y + 1, 9 - y) for x in range(14)] for y in range(9)], float)[
        ..., None
    ]
    total, count = np.zeros((16, 20, 2)), np.zeros((16, 20, 1))
    for top in (0, 5, 7):
        for left in (0, 6):
            tile = (
                frames[:, :, top : top + 9, left : left + 14].double().numpy() / 255 * 2 - 1
            )  # (2, 3, 9, 14)
            padded = np.pad(tile, ((0, 0), (0, 0), (1, 1), (1, 1)))
            patches = np.lib.stride_tricks.sliding_window_view(
                padded, (3, 3), axis=(2, 3)
            )  # (2, 3, 9, 14, 3, 3)
            patches = patches.transpose(0, 4, 5, 1, 2, 3).reshape(1, 2, 27, 9, 14)  # row, column, colour
            with torch.no_grad():
                flow = model(inputs=torch.from_numpy(patches.copy())).logits[0].numpy()
            total[top : top + 9, left : left + 14] += weights * flow
            count[top : top + 9, left : left + 14] += weights
    expected = torch.from_numpy(20 * total / count).float()

    got = estimate_flow(model, frames[None], batch_size=4, min_overlap=4)[0]
    assert oracle.error(got, expected) < 1e-6  # patches and blend are float32
