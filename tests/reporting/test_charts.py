"""Line charts: round ticks, few or missing points."""
import re

import pytest

from engine.reporting import svgcharts
from pageReader import Page


@pytest.mark.parametrize('largest, expected', [
    (1, [0, 0.25, 0.5, 0.75, 1]), (100, [0, 25, 50, 75, 100]), (2.6, [0, 1, 2, 3]),
    (0.03, [0, 0.01, 0.02, 0.03]), (0, [0, 0.25, 0.5, 0.75, 1])])
def test_ticks_are_round_and_reach(largest, expected):
    assert svgcharts.ticks(largest) == pytest.approx(expected)


@pytest.mark.parametrize('xs, ys', [([1], [2.0]), ([1, 2], [None, 0.0]), ([1, 2, 3], [1, 5, 2])])
def test_chart_of_few_or_missing_points(xs, ys):
    chart = svgcharts.line_chart('loss', 'a chart', [('train', 0, xs, ys)], 'epoch', mark=1)
    Page(chart)
    places = [float(n) for n in re.findall(r'(?:cx|cy)="([-\d.]+)"', chart)]
    assert places and all(0 <= n <= svgcharts.WIDTH for n in places) and 'nan' not in chart


def test_bars_of_what_is_taken_back_without_frames():
    drawn = svgcharts.drop_bars([(0, 10, 0.4), (10, 25, -0.1), (25, 40, 0.0)], 40)
    Page(drawn)
    assert 'Most by frames 1 to 10 of 40: 40 points' in drawn
    # up from the middle, 20, by all of it; down by a quarter; nothing
    bars = re.findall(r'class="(\w+)" x="(\d+)" width="(\d+)" y="([\d.]+)" height="([\d.]+)"',
                      drawn)
    assert [(kind, *map(float, numbers)) for kind, *numbers in bars] == [
        ('held', 0, 10, 0, 20), ('hurt', 10, 15, 20, 5), ('hurt', 25, 15, 20, 0)]
    assert 'without frames 1 to 10: -40 points' in drawn
