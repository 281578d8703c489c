"""How near two signals are, in decibels."""

import math


def psnr(squared_error: float, peak: float) -> float:
    """The peak signal-to-noise ratio in dB of a mean squared error; infinite where there is none."""
    return 10 * math.log10(peak * peak / squared_error) if squared_error else math.inf
