"""Windows merged to events, against cases by hand and a second way to say what a moment is."""
import numpy
import pytest

from engine.errors import UserError
from engine.events.merging import Event, class_of_nothing, merge, moments

CLASSES = ['jump', 'other', 'walk']
JUMP, OTHER, WALK, UNSURE = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.4, 0.3, 0.3)


def said(rows, **settings):
    """Events of windows that do not overlap, one a second."""
    return merge(numpy.arange(len(rows) + 1.0), numpy.reshape(rows, (-1, 3)), CLASSES,
                 **settings)


def test_a_moment_is_the_mean_of_the_windows_that_saw_it():
    random = numpy.random.RandomState(0)
    starts = numpy.sort(random.uniform(0, 50, 40))
    spans = [(start, start + 1.5) for start in starts]  # some overlap, between some is a hole
    shares = random.dirichlet([1, 1, 1], 40)
    edges, means = moments(spans, shares)
    assert edges.tolist() == sorted({edge for span in spans for edge in span})
    for begin, end, mean in zip(edges, edges[1:], means):
        middle = (begin + end) / 2
        seen = [i for i, (start, stop) in enumerate(spans) if start <= middle < stop]
        if seen:
            numpy.testing.assert_allclose(mean, shares[seen].mean(axis=0), atol=1e-12)
        else:
            assert numpy.isnan(mean).all()
    assert numpy.isnan(means).any() and not numpy.isnan(means).all()


def test_runs_of_a_class_are_events_but_for_other():
    # by hand: the mean of 0.8, 0.4 and 0.8 over three seconds
    assert said([JUMP, UNSURE, JUMP, OTHER, OTHER, WALK]) == [
        Event('jump', 0, 3, pytest.approx(2 / 3)), Event('walk', 5, 6, 0.8)]
    assert said([JUMP, JUMP, WALK]) == [Event('jump', 0, 2, pytest.approx(0.8)),
                                        Event('walk', 2, 3, 0.8)]
    assert said([OTHER, OTHER]) == said([]) == []
    assert [event.label for event in said([JUMP, OTHER], other='jump')] == ['other']


def test_an_unsure_moment_shows_nothing():
    assert said([JUMP, UNSURE, JUMP], threshold=0.5) == [Event('jump', 0, 1, 0.8),
                                                         Event('jump', 2, 3, 0.8)]
    assert said([JUMP], threshold=0.8) and not said([JUMP], threshold=0.81)


def test_probability_is_the_mean_over_time_not_over_windows():
    edges, shares = numpy.array([0, 3.0, 4]), numpy.array([(0.6, 0.2, 0.2), (1.0, 0, 0)])
    assert merge(edges, shares, CLASSES) == [Event('jump', 0, 4, pytest.approx(0.7))]


def test_gaps_close_before_short_events_go():
    rows = [JUMP, OTHER, JUMP, OTHER, OTHER, JUMP]
    assert [event[:3] for event in said(rows, gap=1, shortest=2)] == [('jump', 0, 3)]
    assert [event[:3] for event in said(rows, gap=2)] == [('jump', 0, 6)]
    assert said(rows, gap=0.9, shortest=1.1) == []
    # by hand: (0.8 + 0.1 + 0.8) / 3
    assert said(rows, gap=1)[0].probability == pytest.approx(17 / 30)


def test_another_class_in_between_keeps_events_apart():
    rows = [JUMP, WALK, JUMP]
    for settings in ({}, {'gap': 5}):
        assert [event.label for event in said(rows, **settings)] == ['jump', 'walk', 'jump']
    # also where that one is too short to stay
    edges = numpy.array([0, 2, 2.5, 4])
    assert [event[:3] for event in merge(edges, numpy.array(rows), CLASSES, gap=5, shortest=1)
            ] == [('jump', 0, 2), ('jump', 2.5, 4)]


def test_what_no_window_saw_is_no_event_however_small_the_gap():
    edges, shares = moments([(0, 1), (3, 4)], numpy.array([JUMP, JUMP]))
    assert merge(edges, shares, CLASSES, gap=10) == [Event('jump', 0, 1, 0.8),
                                                     Event('jump', 3, 4, 0.8)]


@pytest.mark.parametrize('spans', [[(0.0, 0.0)], []])
def test_a_film_without_length_has_no_events(spans):
    assert merge(*moments(spans, numpy.array([JUMP] * len(spans)).reshape(-1, 3)), CLASSES) == []


def test_other_is_one_of_the_classes():
    assert class_of_nothing(None, ['walk', 'other']) == 'other'
    assert class_of_nothing(None, ['walk']) is None
    assert class_of_nothing('no_one', ['walk', 'no_one']) == 'no_one'
    with pytest.raises(UserError, match="--other no: none of the network's classes, walk, other"):
        class_of_nothing('no', ['walk', 'other'])
