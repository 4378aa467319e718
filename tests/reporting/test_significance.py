"""Intervals and tests against figures worked out by hand."""
import numpy as np
import pytest

from engine.reporting import significance


@pytest.mark.parametrize('only_a,only_b,p', [
    (0, 5, 2 / 32), (1, 9, 2 * (1 + 10) / 1024), (9, 1, 22 / 1024), (3, 3, 1), (0, 0, 1)])
def test_mcnemar_by_hand(only_a, only_b, p):
    assert significance.mcnemar(only_a, only_b) == pytest.approx(p)


def test_bootstrap_over_clips_is_the_binomial():
    # Drawing n clips again, each right with share p, is Binomial(n, p) / n.
    from scipy.stats import binom
    right = [True] * 300 + [False] * 100
    low, high = significance.bootstrap_interval(right, range(400), draws=4000)
    assert low == pytest.approx(binom.ppf(0.025, 400, 0.75) / 400, abs=0.006)
    assert high == pytest.approx(binom.ppf(0.975, 400, 0.75) / 400, abs=0.006)


def test_bootstrap_over_groups_is_wider_where_a_group_stands_or_falls_together():
    right = np.repeat([True, True, True, False] * 10, 10)
    clips = significance.bootstrap_interval(right, range(400))
    groups = significance.bootstrap_interval(right, np.repeat(range(40), 10))
    # ten times fewer independent draws: about sqrt(10) as wide
    assert 2.4 < (groups[1] - groups[0]) / (clips[1] - clips[0]) < 4.0
    assert significance.bootstrap_interval([True] * 5, range(5)) == (1, 1)


def test_bootstrap_counts_clips_in_groups_of_unequal_size():
    # One clip, right, and three, wrong: both drawn, which is half of the draws, 1 of 4 is right.
    right, groups = [True, False, False, False], ['a', 'b', 'b', 'b']
    assert significance.bootstrap_interval(right, groups, level=0.4) == (0.25, 0.25)
