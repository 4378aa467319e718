"""Fully connected layers on a few frames, for inference, on the CPU: `dense` of direct.h.

They take as long as it takes to read their weights, once, where a BLAS copies them first. It is a
part of winograd.c: where that is not compiled there is NumPy.
"""
import ctypes
import functools

import numpy

from engine import usable_cores
from engine.fast import compiled, winograd
from engine.fast.buffers import empty

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
