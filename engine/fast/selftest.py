"""What a library that was just built must show, in a process of its own: NumPy's numbers.

compiled.py starts it. A library that the CPU cannot run, or that computes wrongly, ends this
process and no other.
"""
import os

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from engine.fast import compiled, conv, conv_learn, linear, lstm_window

TOLERANCE = 1e-4  # of the largest number


def main(name, path):
    """Computes with the library in file `path`, made of ``<name>.c``; raises if it is no good."""
    opened = compiled.open_library(path)
    if opened is None:
        raise RuntimeError('made for another CPU')
    compiled.load = lambda _: opened  # whom all that computes asks
    {'winograd': _winograd, 'recurrent': _recurrent}[name]()


def _agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        if not abs(a - b).max() <= TOLERANCE * abs(b).max():
            raise RuntimeError('wrong numbers')


def _winograd():
    random = numpy.random.RandomState(0)
    layers, ins = [], 3
    for outs, pool in ((20, True), (70, False)):
        layers.append((random.randn(outs, ins, 3, 3).astype('f'), random.randn(outs).astype('f'),
                       pool))
        ins = outs
    frames = random.randint(0, 256, (2, 21, 18, 3)).astype('u1')
    x = frames.astype('f')
    both = [conv.ConvStack(layers, threads=2, compiled=way) for way in (True, False)]
    _agree([both[0](frames), both[0](x)], [both[1](frames), both[1](x)])
    # Learning, where no rounding decides on a ReLU.
    x, gradients = random.rand(2, 20, 11, 9).astype('f'), []
    gy = random.randn(2, 70, 11, 9).astype('f')
    for stack in (lambda W, b: conv_learn.conv_stack(x, [(W, b, False)]),
                  lambda W, b: chainer.functions.convolution_2d(x, W, b, pad=1)):
        W, b = chainer.Variable(layers[1][0]), chainer.Variable(layers[1][1] + 1000)
        y = stack(W, b)
        y.grad = gy
        y.backward()
        gradients.append([y.array, W.grad, b.grad])
    _agree(*gradients)
    x, w, b = (random.randn(*shape).astype('f') for shape in ((7, 2077), (70, 2077), (70,)))
    os.environ['ENGINE_CONV'] = 'compiled'
    _agree([linear.linear(x, w, b)], [x @ w.T + b])


def _recurrent():
    random = numpy.random.RandomState(0)
    batch, units = 17, 136
    arrays = [random.randn(*shape).astype('f') / 8 for shape in (
        (3, batch, 5), (4 * units, 5), (4 * units, units), (4 * units,),
        (batch, units), (batch, units))]

    def run(way):
        os.environ['ENGINE_LSTM'] = way
        inputs = [chainer.Variable(a) for a in arrays]
        h, c = lstm_window.lstm_window(*inputs)
        h.grad, c.grad = h.array.copy(), c.array.copy()
        chainer.functions.sum(h * h).backward()
        return [h.array, c.array, *[v.grad for v in inputs]]
    _agree(run('compiled'), run('numpy'))
