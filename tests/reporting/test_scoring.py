"""Read-outs and figures, by hand."""
import numpy
import pytest

from engine.errors import UserError
from engine.reporting import scoring


def test_video_log_probability_by_hand():
    p = numpy.array([[0.5, 0.5], [0.8, 0.2]])
    # The ratio of the classes is the (weighted) geometric mean of 1 and 4: 2 and 4^(2/3).
    for readout, ratio in (('mean', 2), ('linear', 4 ** (2 / 3)), ('last', 4), ('max', 1.6)):
        numpy.testing.assert_allclose(numpy.exp(scoring.video_log_probability(p, readout)),
                                      [ratio / (1 + ratio), 1 / (1 + ratio)])


def test_the_mean_names_the_class_that_the_sum_does():
    for steps in numpy.random.RandomState(0).dirichlet(numpy.ones(5), size=(20, 7)):
        summed = numpy.log(steps).sum(axis=0)
        assert scoring.video_log_probability(steps, 'mean').argmax() == summed.argmax()


@pytest.mark.parametrize('readout', scoring.READOUTS)
def test_probabilities_of_a_video_sum_to_1_however_it_is_read_out(readout):
    p = numpy.random.RandomState(0).dirichlet(numpy.ones(7), 30)
    assert numpy.exp(scoring.video_log_probability(p, readout)).sum() == pytest.approx(1)


def test_a_probability_of_zero_does_not_veto_a_class():
    p = numpy.array([[0.0, 1.0]] + [[0.9, 0.1]] * 99, numpy.float32)
    assert scoring.video_log_probability(p).argmax() == 0


def test_score_by_hand():
    scores = numpy.log([[.6, .3, .1], [.1, .3, .6], [.2, .3, .5], [.5, .3, .2]])
    figures = scoring.score(scores, [0, 1, 2, 2])
    assert figures['n'] == 4 and figures['top1'] == 0.5
    assert figures['top5'] is None  # every answer is among the first five of three classes
    numpy.testing.assert_allclose(
        figures['loss'], -numpy.log([.6, .3, .5, .2]).mean())


def test_score_top5_and_ties():
    scores = numpy.tile(numpy.arange(20, 0, -1.0), (3, 1))
    assert scoring.score(scores, [0, 4, 5])['top5'] == pytest.approx(2 / 3)
    assert scoring.score(scores, [0, 9, 10])['top10'] == pytest.approx(2 / 3)
    # the first five of five say nothing, the first of one class must
    assert scoring.score(scores[:, :5], [0, 1, 2])['top5'] is None
    assert scoring.score(scores[:, :6], [0, 1, 2])['top5'] == 1
    assert scoring.score(scores[:, :1], [0, 0, 0])['top1'] == 1
    # a constant answer is no answer
    assert scoring.score(numpy.zeros((2, 12)), [0, 1])['top10'] == 0
    with pytest.raises(UserError, match='not finite'):
        scoring.score([[numpy.nan, 0.0]], [0])


def test_figures_that_a_frequent_class_does_not_rule():
    """Of 8, 1 and 1 clips 8, 0 and 1 are right; class 2 is named once, class 1 never."""
    scores = numpy.eye(4)[[0] * 9 + [2]]
    figures = scoring.score(scores, [0] * 8 + [1, 2])
    assert figures['top1'] == 0.9
    # F1: 2 * 8/9 * 1 / (8/9 + 1) = 16/17, 0 and 1; by chance 0.8 * 0.9 + 0.1 * 0.1 = 0.73
    assert figures['macro_f1'] == pytest.approx((16 / 17 + 0 + 1) / 3)
    assert figures['balanced_accuracy'] == pytest.approx((1 + 0 + 1) / 3)
    assert figures['kappa'] == pytest.approx((0.9 - 0.73) / 0.27)
    # what is named but never shown is an error, not a class more
    assert scoring.score(numpy.eye(4)[[0, 3]], [0, 0])['balanced_accuracy'] == 0.5
    assert scoring.score(numpy.eye(4)[[0, 0]], [0, 0])['kappa'] is None
    # a tie names the other class
    assert scoring.score(numpy.zeros((2, 2)), [0, 1])['balanced_accuracy'] == 0
