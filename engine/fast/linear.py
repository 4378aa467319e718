"""Fully connected layers on the CPU, in float32.

:func:`linear` is for inference on a few frames: it takes as long as it takes to read the weights,
once, where a BLAS copies them first (`dense` of direct.h, a part of winograd.c: where that is not
compiled there is NumPy). :func:`learning` computes what Chainer's ``linear`` computes, and its
gradients, that of the weights, 411 MB of VGG-16's fc6, in memory that serves again.
"""
import ctypes
import functools

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from engine import usable_cores
from engine.fast import compiled, winograd
from engine.fast.buffers import empty, lend

FEW_FRAMES = 64      # with more a BLAS has enough to do for each weight that it reads
OUTPUTS = 24         # that a thread takes at once, SOME in direct.h
LEAST_WORK = 1 << 21  # products of a thread: starting it takes as long as fewer


@functools.lru_cache(maxsize=None)
def _declared(library):
    library.dense.argtypes = ([ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3
                              + [ctypes.c_void_p, ctypes.c_int64])
    library.dense.restype = None
    library.dense_size.argtypes = [ctypes.c_int64]
    library.dense_size.restype = ctypes.c_int64
    return library


def _fits(x, w, b):
    return (all(isinstance(a, numpy.ndarray) and a.dtype == numpy.float32 for a in (x, w, b))
            and w.ndim == 2 and x.shape[1:] == w.shape[1:] and b.shape == w.shape[:1])


def linear(x, w, b):
    """x (n, channels) @ w.T + b, (n, outputs) float32, or None where a BLAS does it better, there
    is no compiled kernel, or the arrays are not such ones.

    Args:
        x, w, b: float32 arrays; w (outputs, channels).
    """
    if not (_fits(x, w, b) and 0 < len(x) <= FEW_FRAMES):
        return None
    library = winograd.chosen()
    if library is None:
        return None
    x, w, b = map(compiled.plain, (x, w, b))
    threads = max(1, min(usable_cores(), -(-len(w) // OUTPUTS), len(x) * w.size // LEAST_WORK))
    out = numpy.empty((len(x), len(w)), numpy.float32)
    work = empty(_declared(library).dense_size(len(x)) * threads)
    library.dense(*map(compiled.address, (x, w, b, out)), *x.shape, len(w),
                  compiled.address(work), threads)
    return out


def learning(x, W, b):
    """Variables x (n, channels), W (outputs, channels) and b (outputs,) -> Variable (n, outputs),
    or None where Chainer's own function is to take them (or to refuse them).

    Can be differentiated by x, W and b, once.
    """
    if not _fits(*map(chainer.as_array, (x, W, b))):
        return None
    return _Linear().apply((x, W, b))[0]


class _Linear(chainer.FunctionNode):

    def forward(self, inputs):
        self.retain_inputs((0, 1))
        x, W, b = inputs
        y = linear(x, W, b)
        return (x.dot(W.T) + b if y is None else y),

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise NotImplementedError('linear.learning has no second derivative')
        x, W = (v.array for v in self.get_retained_inputs())
        gy, gradients = grad_outputs[0].array, {}
        if 0 in indexes:
            gradients[0] = gy.dot(W)
        if 1 in indexes:
            gradients[1] = numpy.dot(gy.T, x, out=lend(W.shape))
        if 2 in indexes:
            gradients[2] = gy.sum(axis=0)
        return [chainer.Variable(gradients[i]) for i in indexes]
