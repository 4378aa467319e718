"""direct.h, through winograd.Kernel and linear.py, against Chainer's layers and float64."""
import collections
import gc
import os
import shutil
import subprocess
import sys

import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F

from convStacks import error
from engine.fast import buffers, linear, winograd
from smallSet import REPOSITORY

pytestmark = pytest.mark.skipif(winograd.chosen() is None, reason=winograd.kernel_name())


def arrays(*shapes, seed=0):
    random = numpy.random.default_rng(seed)
    return [random.normal(size=shape).astype('f') for shape in shapes]


def first(x, w, b, mean, relu=True, threads=2):
    kernel = winograd.Kernel(winograd.chosen(), threads)
    weights = kernel.prepare(w, b, first=True)
    assert weights.directly
    out = numpy.full((*x.shape[:3], len(weights.bias)), numpy.nan, 'f')
    kernel.convolve(x, weights, w.shape[1], out, mean, relu)
    return out


@pytest.mark.parametrize('outs', [1, 16, 33, 64, 100])
@pytest.mark.parametrize('size', [(1, 1), (3, 2), (9, 5), (8, 6), (17, 37)])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_first_layer_agrees_with_chainer(channels, size, outs):
    w, b, mean = arrays((outs, channels, 3, 3), (outs,), (channels,))
    mean *= 50
    x = numpy.random.default_rng(1).integers(0, 256, (2, *size, channels)).astype('u1')
    for given, off, relu in ((x, mean, True), (x, mean, False),
                             (x.astype('f') - mean, numpy.zeros_like(mean), True)):
        theirs = F.convolution_2d((x - mean).transpose(0, 3, 1, 2).astype('f'), w, b, pad=1)
        largest = abs(theirs.array).max()
        theirs = (F.relu(theirs) if relu else theirs).array.transpose(0, 2, 3, 1)
        ours = first(given, w, b, off, relu)
        assert abs(ours[..., :outs] - theirs).max() <= 1e-6 * largest
        assert not ours[..., outs:].any()  # what fills up whole vectors


@pytest.mark.parametrize('n', [1, 2, 3, 4, 6, 7, 16, 64])
@pytest.mark.parametrize('channels, outs', [(1, 1), (7, 5), (16, 24), (1030, 25), (5000, 101)])
def test_linear_agrees_with_float64(channels, outs, n):
    x, w, b = arrays((n, channels), (outs, channels), (outs,))
    exact = x.astype(float) @ w.T.astype(float) + b
    assert error(linear.linear(x, w, b), exact) < 1e-6


def test_sums_of_many_inputs_keep_their_digits():
    """fc6's 25088, in one chain of additions a lane, come to 2e-7 to 3e-7, in parts to 7e-8."""
    x, w, b = arrays((4, 25088), (64, 25088), (64,))
    x = abs(x)
    exact = x.astype('d') @ w.T.astype('d') + b
    off = linear.linear(x, w, b) - exact
    assert numpy.sqrt((off ** 2).mean()) < 1.3e-7 * abs(exact).max()


def test_linear_leaves_others_what_they_do_better():
    x, w, b = arrays((linear.FEW_FRAMES + 1, 5), (3, 5), (3,))
    assert linear.linear(x, w, b) is None and linear.linear(x[:0], w, b) is None
    assert linear.linear(x[:2].astype('d'), w, b) is None
    # What does not fit is Chainer's to refuse.
    assert linear.linear(x[:2, :4], w, b) is None and linear.linear(x[:2], w, b[:2]) is None
    assert linear.linear(x[:2, :, None], w, b) is None


def test_the_bits_do_not_depend_on_company_or_threads(monkeypatch):
    x, w, b = arrays((13, 11111), (70, 11111), (70,))
    together = linear.linear(x, w, b)
    for part in (slice(0, 1), slice(3, 9), slice(12, 13)):
        assert numpy.array_equal(linear.linear(x[part], w, b), together[part])
    monkeypatch.setattr(linear, 'usable_cores', lambda: 3)
    assert numpy.array_equal(linear.linear(x, w, b), together)
    x, w, b = arrays((3, 21, 19, 3), (20, 3, 3, 3), (20,))
    mean = numpy.zeros(3, 'f')
    together = first(x, w, b, mean)
    assert numpy.array_equal(first(x[1:2], w, b, mean, threads=5), together[1:2])


@pytest.mark.skipif(shutil.which('gcc') is None, reason='no gcc')
def test_neither_do_they_where_the_compiler_would_leave_sums_apart(tmp_path):
    # As gcc from 13 on, by itself, on newer CPUs.
    script = """
import numpy
from engine.fast import linear, winograd
random = numpy.random.default_rng(0)
x, w, b = (random.normal(0, 1, shape).astype('f') for shape in ((13, 11111), (70, 11111), 70))
assert winograd.chosen() is not None
together = linear.linear(x, w, b)
assert all(numpy.array_equal(linear.linear(x[k:k + 1], w, b)[0], together[k]) for k in (0, 12))"""
    done = subprocess.run([sys.executable, '-c', script], cwd=REPOSITORY, capture_output=True,
                          text=True, timeout=300, env=dict(
                              os.environ, CC='gcc --param=avoid-fma-max-bits=512',
                              XDG_CACHE_HOME=str(tmp_path)))
    assert (done.returncode, done.stderr) == (0, '')


def test_what_is_no_number_goes_where_it_goes_in_chainer():
    x, w, b = arrays((1, 9, 14, 3), (8, 3, 3, 3), (8,))
    x[0, 4, 7, 1], x[0, 0, 0, 2] = numpy.nan, -numpy.inf
    with numpy.errstate(invalid='ignore'):
        theirs = F.relu(F.convolution_2d(x.transpose(0, 3, 1, 2), w, b, pad=1)).array
    ours = first(x, w, b, numpy.zeros(3, 'f'))[..., :8].transpose(0, 3, 1, 2)
    assert numpy.array_equal(numpy.isnan(ours), numpy.isnan(theirs))
    assert numpy.array_equal(numpy.isinf(ours), numpy.isinf(theirs))
    x, w, b = arrays((3, 40), (9, 40), (9,))
    x[1, 3] = numpy.nan
    assert numpy.isnan(linear.linear(x, w, b)).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize('n', [1, 9, 70])
@pytest.mark.parametrize('differs', [(0, 1, 2), (1, 2), (0,)])
def test_a_layer_that_learns_agrees_with_chainer(n, differs):
    arrays_of = arrays((n, 50), (33, 50), (33,), (n, 33))
    found = []
    for function in (linear.learning, F.linear):
        variables = [chainer.Variable(a.copy(), requires_grad=i in differs)
                     for i, a in enumerate(arrays_of[:3])]
        y = function(*variables)
        y.grad = arrays_of[3]
        y.backward()
        found.append([y.array, *[variables[i].grad for i in differs]])
    for ours, theirs in zip(*found):
        assert ours.shape == theirs.shape and error(ours, theirs) < 1e-6


def test_a_gradient_stays_what_it_is_while_it_is_held(monkeypatch):
    for name in ('_spare', '_returned'):
        monkeypatch.setattr(buffers, name, collections.deque(maxlen=64))
    x, w, b = arrays((5, 40), (30, 40), (30,))
    layers = []
    for factor in range(1, 5):
        W = chainer.Variable(w)
        F.sum(factor * linear.learning(x, W, b)).backward()
        layers.append(W)
    one = x.sum(axis=0) * numpy.ones((30, 1))
    for factor, W in enumerate(layers, 1):
        assert error(W.grad, factor * one) < 1e-6
    held, memory = layers[0].grad[3:5], layers[1].grad.__array_interface__['data']
    del layers, W
    gc.collect()
    W = [chainer.Variable(w) for _ in range(3)]
    for each in W:  # three are free, of one there still is a view
        F.sum(linear.learning(x, each, b)).backward()
    assert error(held, one[3:5]) < 1e-6
    assert memory in [each.grad.__array_interface__['data'] for each in W]


def test_what_does_not_fit_is_chainers_to_refuse():
    x, w, b = arrays((2, 4), (3, 5), (3,))
    assert linear.learning(x, w, b) is None
    assert linear.learning(*(a.astype('d') for a in arrays((2, 5), (3, 5), (3,)))) is None
