"""direct.c: layers that Winograd's algorithm gains nothing for, for inference, on the CPU.

The first convolution has so few channels that its transforms would take longer than its products;
fully connected layers on a few frames take as long as it takes to read their weights once, which
a BLAS, that copies them first, does twice. Where there is no compiled kernel (engine/fast/
compiled.py) callers have engine/fast/winograd.py and NumPy.
"""
import ctypes

import numpy

from engine import usable_cores
from engine.fast import compiled, winograd
from engine.fast.buffers import empty

FEW_CHANNELS = 4   # of a convolution
FEW_FRAMES = 64    # with more a BLAS has enough to do for each weight that it reads


def load():
    """The library of direct.c, or None. It goes with winograd.c: who computes by that asks."""
    library = compiled.load('direct')[0]
    if library is not None:
        for call, arrays, numbers in ((library.first, 5, 7), (library.dense, 4, 3)):
            call.argtypes = ([ctypes.c_void_p] * arrays + [ctypes.c_int64] * numbers
                             + [ctypes.c_void_p, ctypes.c_int64])
            call.restype = None
        library.first_size.argtypes = [ctypes.c_int64] * 2
        library.dense_size.argtypes = [ctypes.c_int64]
        library.first_size.restype = library.dense_size.restype = ctypes.c_int64
    return library


class FirstConvolution:
    """A 3x3 convolution (stride 1, padding 1) of at most FEW_CHANNELS, with bias.

    Args:
        library: what `load` gives.
        w, b: (outputs, channels, 3, 3) and (outputs,) float32; copied.
        mean: (channels,) float32, subtracted from bytes.
    """

    def __init__(self, library, w, b, mean, threads):
        self.library, self.threads = library, threads
        self.mean, self.no_mean = mean, numpy.zeros_like(mean)
        rest = -len(w) % library.lanes()
        self.b = numpy.pad(b, (0, rest))
        self.w = compiled.plain(numpy.pad(w.transpose(2, 3, 1, 0), [(0, 0)] * 3 + [(0, rest)]))
        self.work = empty(0)

    def __call__(self, x, out, relu=True):
        """x (n, height, width, channels), bytes or float32, to out (n, height, width, outputs),
        outputs filled up to whole vectors. One caller at a time."""
        each = self.library.first_size(*x.shape[2:])
        if len(self.work) < each * self.threads:
            self.work = empty(each * self.threads)
        is_bytes = x.dtype == numpy.uint8
        self.library.first(
            compiled.address(x, x.dtype), *map(compiled.address, (
                self.mean if is_bytes else self.no_mean, self.w, self.b, out)),
            *x.shape, out.shape[3], is_bytes, bool(relu), compiled.address(self.work),
            self.threads)


def linear(x, w, b):
    """x (n, channels) @ w.T + b, (n, outputs) float32, or None where a BLAS does it better or there
    is no compiled kernel.

    Args:
        x, w, b: float32 arrays; w (outputs, channels).
    """
    if not (0 < len(x) <= FEW_FRAMES and all(
            isinstance(a, numpy.ndarray) and a.dtype == numpy.float32 for a in (x, w, b))):
        return None
    library = load() if winograd.chosen() is not None else None
    return library and dense(library, x, w, b)


def dense(library, x, w, b):
    """linear, by this library."""
    x, w, b = map(compiled.plain, (x, w, b))
    out, threads = numpy.empty((len(x), len(w)), numpy.float32), usable_cores()
    work = empty(library.dense_size(len(x)) * threads)
    library.dense(*map(compiled.address, (x, w, b, out)), *x.shape, len(w),
                  compiled.address(work), threads)
    return out
