"""Leaving out frames, of a network whose answer tells which frames it saw."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
import pytest

from engine.learning import occlusion
from helperFunctions import Clip


class Counting:
    """Two classes, whose odds of a step are e to the sum of the features seen so far."""
    once = False

    def reset_state(self):
        self.total = 0.0

    def __call__(self, xs):
        sums = self.total + numpy.cumsum(xs[..., 0], axis=0)
        self.total = sums[-1]
        return chainer.Variable(numpy.stack([sums, 0 * sums], axis=2))


def odds(softmax):
    return numpy.log(softmax[-1, 0] / softmax[-1, 1])


def test_what_is_without_each_stretch():
    rows = numpy.array([0, 0, 1, 0, 0.5, 0, 0], numpy.float32)[:, None]
    whole, parts = occlusion.leave_out(
        Counting(), chainer.get_device('@numpy'), Clip('v', 'A', 0, 'g', None), rows, parts=3,
        technique='full', steps=0)
    assert odds(whole) == pytest.approx(1.5, abs=1e-5) and len(whole) == 7
    assert [(part.start, part.end) for part in parts] == [(0, 2), (2, 5), (5, 7)]
    assert [odds(part.without) for part in parts] == pytest.approx([1.5, 0, 1.5], abs=1e-5)
    assert [len(part.without) for part in parts] == [5, 4, 5]


@pytest.mark.parametrize('n,edges', [(1, []), (2, [(0, 1), (1, 2)])])
def test_clips_of_few_frames(n, edges):
    whole, parts = occlusion.leave_out(
        Counting(), chainer.get_device('@numpy'), Clip('v', 'A', 0, 'g', None),
        numpy.ones((n, 1), numpy.float32), technique='first', steps=4)
    assert len(whole) == 4 and [(part.start, part.end) for part in parts] == edges
