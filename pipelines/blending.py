"""Windows that overlap become one: what two neighbours share is blended linearly from the one to the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def blend(steps: npt.NDArray[Any], windows: Sequence[tuple[str, int]], shared: int) -> None:
    """Blend in place the last `shared` steps of each window with the first of the next, so that both have the same.

    `steps` (windows, steps, ...): frames or samples, uint8 or float. `windows`: of each, the item that it is of and its
    number there; a window whose neighbour is not among them keeps what it has on that side.
    """
    place = {window: row for row, window in enumerate(windows)}
    weight = (np.arange(1, shared + 1, dtype=np.float32) / (shared + 1)).reshape(-1, *[1] * (steps.ndim - 2))
    for (item, number), row in place.items():
        following = place.get((item, number + 1))
        if following is None or not shared:
            continue
        before, after = steps[row, -shared:], steps[following, :shared]
        mixed = before + (after.astype(np.float32) - before) * weight  # shared, ...
        if steps.dtype == np.uint8:
            mixed = np.rint(mixed)
        steps[row, -shared:] = steps[following, :shared] = mixed.astype(steps.dtype)
