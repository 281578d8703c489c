"""Charts: what they draw is what their tables say."""

import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report import charts
from jobs.report.charts import Chart, Series, rebinned
from pipelines.quality import Histogram

PLAIN = ("time", str), ("value", str)
VALUES = st.floats(0, 1e12) | st.just(0.0)


def drawn(chart: Chart) -> ET.Element:
    """The picture, which is well-formed and has no number that is none."""
    svg = ET.fromstring(chart.svg)
    assert svg.attrib["role"] == "img"
    assert [svg[0].tag, svg[1].tag] == ["title", "desc"]
    assert (svg[0].text, svg[1].text) == (chart.title, chart.says)
    numbers = [value for one in svg.iter() for name, value in one.attrib.items() if name != "class"]
    assert not [value for value in numbers if re.search(r"nan|inf", value)]
    assert not [one for one in svg.iter() if "style" in one.attrib]
    return svg


def within(svg: ET.Element) -> None:
    """All of it lies in the picture."""
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for line in svg.iter("polyline"):
        for x, y in (map(float, point.split(",")) for point in line.attrib["points"].split()):
            assert 0 <= x <= width
            assert 0 <= y <= height
    for box in svg.iter("rect"):
        x, y, w, h = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


@given(st.lists(st.tuples(VALUES, VALUES) | st.none(), max_size=30), st.booleans())
def test_lines(points: list[tuple[float, float] | None], area: bool) -> None:
    chart = charts.lines("a", "b", [Series("one", points)], *PLAIN, area=area)
    within(drawn(chart))
    assert len(chart.rows) == len({point[0] for point in points if point})


def test_a_gap_parts_a_line_and_a_point_alone_is_a_dot() -> None:
    chart = charts.lines("a", "b", [Series("one", [(0, 1), (1, 2), None, (3, 4)])], *PLAIN)
    svg = drawn(chart)
    assert [len(line.attrib["points"].split()) for line in svg.iter("polyline")] == [2, 1]
    assert len(list(svg.iter("circle"))) == 1
    assert chart.rows == (("0", "1"), ("1", "2"), ("3", "4"))


def test_several_lines_are_told_apart_without_colour() -> None:
    two = [Series("up", [(0, 0), (1, 1)]), Series("down", [(0, 1), (2, 0)])]
    chart = charts.lines("a", "b", two, *PLAIN)
    assert {line.attrib["class"] for line in drawn(chart).iter("polyline")} == {"line line-0", "line line-1"}
    assert chart.columns == ("time", "up", "down")
    assert chart.rows == (("0", "0", "1"), ("1", "1", ""), ("2", "", "0"))
    assert {"up", "down"} <= {text.text for text in drawn(chart).iter("text")}


@given(st.lists(st.tuples(st.text(max_size=80), VALUES), max_size=8), VALUES)
def test_bars(rows: list[tuple[str, float]], most: float) -> None:
    printable = [("".join(c for c in name if c.isprintable()), value) for name, value in rows]
    chart = charts.bars(
        "a", "b", [(name, value, f"{value}") for name, value in printable], ("name", "value"), most
    )
    svg = drawn(chart)
    within(svg)
    names = [text.text or "" for text in svg.iter("text") if text.attrib["class"] == "name"]
    assert all(len(short) <= 46 for short in names)
    assert [name for name, _ in chart.rows] == [name for name, _ in printable]


@given(st.lists(st.floats(-10, 70) | st.sampled_from([math.inf, -math.inf, math.nan]), max_size=50))
def test_histograms(values: list[float]) -> None:
    spread = Histogram(0, 60, 240)
    spread.add(values)
    chart = charts.histogram("a", "b", spread, "dB", "rows")
    within(drawn(chart))
    assert sum(int(count.replace(",", "")) for _, count in chart.rows) == len(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_bins_are_few_round_and_lose_nothing(values: list[float]) -> None:
    spread = Histogram(0, 1, 100)
    spread.add(values)
    low, high, counts = rebinned(spread)
    assert sum(counts) == len(values)
    assert 0 < len(counts) <= 24
    assert 0 <= low <= min(values) + 1e-9
    assert high + 1e-9 >= max(values)
    assert len(counts) >= 9
    width = (high - low) / len(counts)
    assert width == pytest.approx(round(width, 2))
    assert low / width == pytest.approx(round(low / width), abs=1e-6)


@pytest.mark.parametrize("most", [0.001, 0.7, 1, 3, 9.9, 10, 11, 28, 99, 1e6, 1e300])
@pytest.mark.parametrize("whole", [False, True])
def test_ticks_are_few_and_reach_the_top(most: float, whole: bool) -> None:
    ticks = charts._ticks(most, whole)
    assert ticks[0] == 0
    assert ticks[-1] >= most
    assert ticks[-2] < most
    assert 2 <= len(ticks) <= 5
    assert not whole or all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_no_value_is_still_a_picture(value: Any) -> None:
    assert charts._ticks(value) == [0.0, 1.0]
