"""direct.h: layers that Winograd's algorithm gains nothing for, for inference, on the CPU.

The first convolution has so few channels that its transforms would take longer than its products;
fully connected layers on a few frames take as long as it takes to read their weights, once, where
a BLAS copies them first. It is a part of winograd.c: where that is not compiled there is NumPy.
"""
import ctypes
import functools

import numpy

from engine import usable_cores
from engine.fast import compiled, winograd
from engine.fast.buffers import empty

FEW_CHANNELS = 4     # of a convolution
FEW_FRAMES = 64      # with more a BLAS has enough to do for each weight that it reads
OUTPUTS = 24         # that a thread takes at once, SOME in direct.h
LEAST_WORK = 1 << 21  # products of a thread: starting it takes as long as fewer


@functools.lru_cache(maxsize=None)
def _declared(library):
    for call, arrays, numbers in ((library.first, 5, 7), (library.dense, 4, 3)):
        call.argtypes = ([ctypes.c_void_p] * arrays + [ctypes.c_int64] * numbers
                         + [ctypes.c_void_p, ctypes.c_int64])
        call.restype = None
    library.first_size.argtypes = [ctypes.c_int64] * 2
    library.dense_size.argtypes = [ctypes.c_int64]
    library.first_size.restype = library.dense_size.restype = ctypes.c_int64
    return library


def serves(w, pool):
    """Whether FirstConvolution takes a layer of these weights."""
    return w.shape[1] <= FEW_CHANNELS and not pool


class FirstConvolution:
    """A 3x3 convolution (stride 1, padding 1) of at most FEW_CHANNELS, with bias.

    Args:
        library: what winograd.chosen gives.
        w, b: (outputs, channels, 3, 3) and (outputs,) float32; copied.
        mean: (channels,) float32, subtracted from bytes.
    """

    def __init__(self, library, w, b, mean, threads):
        self.library, self.threads = _declared(library), threads
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
    """x (n, channels) @ w.T + b, (n, outputs) float32, or None where a BLAS does it better, there
    is no compiled kernel, or the arrays are not such ones.

    Args:
        x, w, b: float32 arrays; w (outputs, channels).
    """
    if not (all(isinstance(a, numpy.ndarray) and a.dtype == numpy.float32 for a in (x, w, b))
            and 0 < len(x) <= FEW_FRAMES and x.shape[1:] == w.shape[1:] and w.ndim == 2
            and b.shape == w.shape[:1]):
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
