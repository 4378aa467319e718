"""Which settings make events most like what was marked: worked out by hand, and as scored."""
import numpy

from engine.events.choosing import Settings, choose
from engine.events.merging import moments

CLASSES = ['walk', 'sit', 'other']


def film(shares, truth):
    """A film of windows of a second each, side by side."""
    spans = [(i, i + 1) for i in range(len(shares))]
    return *moments(spans, numpy.array(shares)), truth, float(len(shares))


def test_a_threshold_between_what_is_right_and_what_is_not():
    """Surely right from 0 to 3, wrong by less from 5 to 7: only 0.7 and more leave it out, and
    0.8 would leave out what is right."""
    shares = [[0.75, 0.1, 0.15]] * 3 + [[0.1, 0.1, 0.8]] * 2 + [[0.2, 0.65, 0.15]] * 2
    given = Settings(0.5, 0.0, 0.0)
    best, found, as_given = choose([film(shares, [('walk', 0, 3)])], CLASSES, 'other', given)
    assert best.threshold == 0.7
    assert found.f1(0.5) == found.accuracy() == 1
    # one of two said is right: 2 / (1 + 2); 5 frames of 7
    assert as_given.f1(0.5) == 2 / 3 and as_given.accuracy() == 5 / 7


def test_a_gap_that_is_none():
    """What is one event came in two parts, a second apart."""
    shares = [[0.9, 0, 0.1]] * 3 + [[0.3, 0, 0.7]] + [[0.9, 0, 0.1]] * 3 + [[0, 0, 1]] * 3
    best, found, _ = choose([film(shares, [('walk', 0, 7)])], CLASSES, 'other',
                            Settings(0.5, 0.5, 0.5))
    assert best.gap >= 1 and found.f1(0.5) == found.accuracy() == 1


def test_where_nothing_is_better_the_given_settings_stay():
    shares = [[0.95, 0, 0.05]] * 3 + [[0, 0, 1]] * 3
    given = Settings(0.45, 0.1, 0.7)
    best, found, as_given = choose([film(shares, [('walk', 0, 3)])], CLASSES, 'other', given)
    assert best == given and found is as_given


def test_of_classes_that_the_network_does_not_know():
    """They are missed, whatever the settings."""
    shares = [[0.95, 0, 0.05]] * 3 + [[0, 0, 1]] * 3
    _, found, _ = choose([film(shares, [('walk', 0, 3), ('run', 4, 6)])], CLASSES, 'other',
                         Settings(0.5, 0.5, 0.5))
    assert found.f1(0.5) == 2 / 3
