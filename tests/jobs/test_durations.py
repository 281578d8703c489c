"""Spans of time, written and read."""

import pytest

from jobs.durations import duration, spoken


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), (" 2 h", 7200), ("1d", 86_400), ("0s", 0)]
)
def test_written(text: str, seconds: int) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "90", "soon", "-1h", "1.5h", "1w", "1234567s"])
def test_not_a_span(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a span of time such as 90s, 30m, 2h or 1d; got '"):
        duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (150, "2.5 min"), (750, "12 min"), (7199, "120 min"),
     (12_600, "3.5 h"), (86_400, "24 h"), (181_440, "2.1 days")],
)  # fmt: skip
def test_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
