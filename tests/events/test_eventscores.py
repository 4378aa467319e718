"""Scores of events against cases by hand, and against the papers' rule over frames."""
import math

import numpy
import pytest

from engine.events.eventscores import NOTHING, Scores, edit_score, f1, frames_of, pair

A, B, C = 0, 1, 2


def scores_of(truth, predicted, seconds, n_classes=3, rate=10):
    scores = Scores(n_classes, rate)
    scores.add(truth, predicted, seconds)
    return scores


def test_a_case_by_hand():
    """Ten seconds, A from 0 to 4, B from 6 to 8; said are A from 1 to 4 and twice B."""
    truth, predicted = [(A, 0, 4), (B, 6, 8)], [(A, 1, 4), (B, 5, 8), (B, 9, 9.5)]
    scores = scores_of(truth, predicted, 10)
    # wrong: A's first second, B's second before, half a second behind
    assert scores.accuracy() == pytest.approx(0.75)
    assert (scores.recall(A), scores.recall(B)) == (0.75, 1)
    assert math.isnan(scores.recall(C)) and scores.mean_recall() == 0.875
    # overlaps 3/4 and 2/3; the third event is too much
    for least in (0.1, 0.25, 0.5):
        assert scores.f1(least) == pytest.approx(2 * 2 / (2 + 3))
        assert (scores.f1(least, A), scores.f1(least, B)) == (1, pytest.approx(2 / 3))
    assert scores.edit() == pytest.approx(1 - 1 / 3)  # one to be taken out of three
    assert scores.border_error('starts') == 1 and scores.border_error('stops') == 0
    assert scores.border_error('starts', A) == 1 and math.isnan(scores.border_error('starts', C))


def test_overlap_decides():
    truth = [(A, 0, 10)]
    for stop, found in ((0.9, ()), (1, (0.1,)), (2.4, (0.1,)), (2.5, (0.1, 0.25)),
                        (4.9, (0.1, 0.25)), (5, (0.1, 0.25, 0.5))):
        scores = scores_of(truth, [(A, 0, stop)], 10)
        assert [least for least in (0.1, 0.25, 0.5) if scores.f1(least) == 1] == list(found), stop
        assert scores_of(truth, [(B, 0, stop)], 10).f1(0.1) == 0


def test_one_event_in_pieces_is_found_once():
    scores = scores_of([(A, 0, 6)], [(A, 0, 2), (A, 2.5, 6)], 6)
    assert scores.f1(0.1) == pytest.approx(2 / 3) and scores.f1(0.5) == pytest.approx(2 / 3)
    # borders are those of the larger piece
    assert scores.border_error('starts') == 2.5 and scores.border_error('stops') == 0


def test_nothing_said_and_nothing_true():
    for truth, predicted, f, edit in (([(A, 0, 1)], [], 0, 0), ([], [(A, 0, 1)], 0, 0),
                                      ([], [], math.nan, 1)):
        scores = scores_of(truth, predicted, 2)
        numpy.testing.assert_equal(scores.f1(0.5), f)
        assert scores.edit() == edit
        assert scores.accuracy() == (0.5 if truth or predicted else 1)


@pytest.mark.parametrize('truth, predicted, score', [
    ('kitten', 'sitting', 1 - 3 / 7), ('abc', 'abc', 1), ('abc', '', 0), ('', '', 1),
    ('ab', 'ba', 0), ('abcd', 'acd', 0.75)])
def test_edit_score(truth, predicted, score):
    assert edit_score(list(truth), list(predicted)) == pytest.approx(score)


def test_frames():
    """A frame shows what happens at its middle; of two things what began last."""
    assert frames_of([(A, 0.1, 0.3)], 5, 10).tolist() == [NOTHING, A, A, NOTHING, NOTHING]
    assert frames_of([(A, 0.14, 0.26)], 4, 10).tolist() == [NOTHING, A, A, NOTHING]
    assert frames_of([(A, 0.16, 0.24)], 4, 10).tolist() == [NOTHING] * 4
    assert frames_of([(B, 0.2, 9), (A, 0, 0.4)], 5, 10).tolist() == [A, A, B, B, B]
    assert frames_of([(A, -1, 0.2)], 3, 10).tolist() == [A, A, NOTHING]


# ------------------------------------------------------------ the papers' rule, over frames

def segments(labels):
    """[(label, start, stop)] of the runs of a sequence of frames, nothing left out."""
    edges = [0, *[i for i in range(1, len(labels)) if labels[i] != labels[i - 1]], len(labels)]
    return [(labels[i], i, j) for i, j in zip(edges, edges[1:]) if labels[i] != NOTHING]


def f1_over_frames(truth, predicted, least):
    """Each predicted segment in turn takes the true one of its label that it overlaps most, if
    that much, unless it is taken: a true positive, else a false one."""
    taken, right = set(), 0
    for label, start, stop in predicted:
        overlaps = [len(set(range(start, stop)) & set(range(*other[1:])))
                    / len(set(range(start, stop)) | set(range(*other[1:])))
                    * (other[0] == label) for other in truth]
        best = int(numpy.argmax(overlaps)) if overlaps else None
        if overlaps and overlaps[best] >= least and best not in taken:
            taken.add(best)
            right += 1
    precision = right / len(predicted) if predicted else 0
    recall = right / len(truth) if truth else 0
    return 2 * precision * recall / (precision + recall) if right else 0.0


def test_as_over_frames_on_films_of_chance():
    random = numpy.random.RandomState(0)
    for _ in range(100):
        lines = []
        for _ in range(2):
            runs = [[random.randint(-1, 3)] * random.randint(1, 12) for _ in range(8)]
            lines.append(sum(runs, [])[:40])
        count = min(map(len, lines))
        truth, predicted = (segments(line[:count]) for line in lines)
        scores = scores_of(truth, predicted, count, rate=1)
        for least in (0.1, 0.25, 0.5):
            numpy.testing.assert_allclose(numpy.nan_to_num(scores.f1(least)),
                                          f1_over_frames(truth, predicted, least))
        assert scores.accuracy() == numpy.mean(
            [a == b for a, b in zip(lines[0][:count], lines[1][:count])])


def test_sums_over_films_are_of_events_not_of_films():
    scores = Scores(2, 10)
    scores.add([(A, 0, 1)], [(A, 0, 1)], 2)
    scores.add([(A, 0, 1), (A, 2, 3), (B, 4, 5)], [], 6)
    assert scores.f1(0.5) == f1(1, 4, 1) == pytest.approx(0.4)
    assert scores.edit() == 0.5  # the mean over films
    assert scores.accuracy() == pytest.approx(50 / 80)
    assert pair([], [(A, 0, 1)]).best.tolist() == [-1]
