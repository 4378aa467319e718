"""Winograd's F(4x4,3x3) for convolutions 3x3: its matrices, and winograd.c, which computes with it.

Lavin and Gray 2016, arXiv:1509.09308: 36 products for 16 outputs in place of 144. What computes
by it: engine/fast/conv.py, conv_learn.py and conv_gpu.py. A first layer of few channels is computed
directly on the CPU (direct.h): its transforms would take longer than its products.
"""
import ctypes
import functools
import threading
from typing import NamedTuple

import numpy

from engine.fast import compiled
from engine.fast.buffers import empty, lend
from engine.fast.threads import in_threads

MOST_TILES = 28           # of a block, so that all their transforms stay in the L2 cache
FEW_CHANNELS = 4          # of a first layer's input, for which it is computed directly
LARGE_WEIGHTS = 16 << 20  # bytes, from where twice as many tiles save more in reading these

# F(4x4,3x3) at the points 0, 1, -1, 1/2, -2 and infinity: with 2 in place of 1/2, as is usual,
# rounding is twice as large.
_G = numpy.array([[15, 0, 0], [5, 5, 5], [-5, 5, -5], [-16, -8, -4], [1, -2, 4], [0, 0, 15]]) / 15
_B = numpy.array([[2, -3, -4, 3, 2, 0], [0, -2, 1, 5, 2, 0], [0, 2, -5, 1, 2, 0],
                  [0, -4, -2, 4, 2, 0], [0, 1, -2, -1, 2, 0], [0, 2, -3, -4, 3, 2]]) / 2
_A = numpy.array([[8, 8, 8, 8, 8, 0], [0, 8, -8, 4, -16, 0],
                  [0, 8, 8, 2, 32, 0], [0, 8, -8, 1, -64, 8]]) / 8
# On a tile's numbers in a row: 36 of the input to 36, and 36 products to 16 of the output.
INPUT_TRANSFORM, OUTPUT_TRANSFORM = (numpy.kron(a, a).astype(numpy.float32) for a in (_B, _A))


def transformed_weights(w):
    """(outputs, inputs, 3, 3) -> (36, inputs, outputs) float32, as the products want them."""
    u = numpy.kron(_G, _G) @ w.transpose(2, 3, 1, 0).reshape(9, -1).astype(numpy.float64)
    return u.astype(numpy.float32).reshape(36, w.shape[1], len(w))


def weights_gradient(gu):
    """(36, inputs, outputs), the gradient of transformed_weights(w) -> that of w, float32."""
    gw = numpy.kron(_G, _G).T.astype(numpy.float32) @ gu.reshape(36, -1)
    turned = lend((gu.shape[2], gu.shape[1], 9))
    for k, of_place in enumerate(gw.reshape(9, *gu.shape[1:])):  # each by itself: twice as fast
        turned[..., k] = of_place.T
    return turned.reshape(*turned.shape[:2], 3, 3)


def out_size(size, pool):
    """Rows or columns of a layer's output."""
    return -(-size // 2) if pool else size


def channels_first(a):
    """(N, H, W, C) -> (N, C, H, W), always a copy: 1x1 maps in a buffer are contiguous either way,
    and a buffer serves again."""
    return numpy.array(a.transpose(0, 3, 1, 2), order='C')


# ---- winograd.c -----------------------------------------------------------------------------

class _Layer(ctypes.Structure):
    # struct layer of winograd.c
    _fields_ = ([(name, ctypes.c_void_p) for name in (
        'input', 'out', 'whole', 'mean', 'u', 'bias')]
                + [(name, ctypes.c_int64) for name in (
                    'n', 'height', 'width', 'channels', 'stride_in', 'stride_out',
                    'first', 'bytes', 'relu', 'pool', 'tiles')])


@functools.lru_cache(maxsize=None)
def _declared(library):
    library.work_size.restype = ctypes.c_int64
    library.spread_size.argtypes = [ctypes.POINTER(_Layer), ctypes.c_int64]
    library.tile_stride.argtypes = [ctypes.c_int64]
    library.spread_size.restype = library.tile_stride.restype = ctypes.c_int64
    library.prepare.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 5, ctypes.c_void_p]
    library.prepare.restype = None
    for name, arrays in (('convolve', 1), ('spread_input', 2), ('spread_gradient', 1),
                         ('add_products', 3), ('through_output', 2)):
        call = getattr(library, name)
        call.argtypes = [ctypes.POINTER(_Layer), *[ctypes.c_void_p] * arrays, ctypes.c_int64]
        call.restype = None
    library.first.argtypes = ([ctypes.c_void_p] * 5 + [ctypes.c_int64] * 7
                              + [ctypes.c_void_p, ctypes.c_int64])
    library.first.restype = None
    library.first_size.argtypes = [ctypes.c_int64] * 2
    library.first_size.restype = ctypes.c_int64
    return library


def chosen(wanted=None):
    """The library of winograd.c, or None for NumPy: see compiled.chosen; by ENGINE_CONV."""
    library = compiled.chosen('winograd', 'ENGINE_CONV', wanted)
    return None if library is None else _declared(library)


def kernel_name(wanted=None):
    """What convolutions would run on now, for logs: see compiled.kernel_name."""
    return compiled.kernel_name('winograd', 'ENGINE_CONV', wanted)


class Weights(NamedTuple):
    """A layer's, as Kernel.convolve wants them: `w` transformed for Winograd's products or, for
    the direct way, (3, 3, inputs, outputs); outputs filled up to whole vectors."""
    w: numpy.ndarray
    bias: numpy.ndarray
    directly: bool


class Kernel:
    """winograd.c, a layer at a time, the work shared out among threads.

    Frames are (n, height, width, channels) float32, channels padded to `lanes` but for the
    input of a first layer. It serves one caller at a time, who holds its `lock`: by `with` on the
    lock itself, because a Ctrl-C within an __enter__ of ours would leave it held for ever.
    """

    def __init__(self, library, threads):
        self.library, self.threads, self.lanes = library, threads, library.lanes()
        self.work, self.scratch = empty(0), empty(0)
        self.lock = threading.Lock()

    def padded(self, channels):
        return -(-channels // self.lanes) * self.lanes

    def prepare(self, w, b, first=False, pool=False, turned=False, memory=empty):
        """(outputs, inputs, 3, 3) and (outputs,), whether the layer is a first one, and pooled ->
        its Weights. `turned` gives those of the way back: outputs are inputs, turned half round.
        `memory` is buffers.lend for such as are needed once."""
        w = compiled.plain(w)
        of, by = w.shape[:2], (9 * w.shape[1], 9)
        if turned:
            of, by = of[::-1], by[::-1]
        outs, ins = of
        bias = numpy.pad(b, (0, self.padded(outs) - outs))
        if first and not pool and ins <= FEW_CHANNELS:
            u = numpy.pad(w.transpose(2, 3, 1, 0), [(0, 0)] * 3 + [(0, len(bias) - outs)])
            return Weights(compiled.plain(u), bias, True)
        u, panel = memory(36 * len(bias) * ins), 2 * self.lanes  # PANEL of winograd.c
        step = -(-outs // (panel * self.threads)) * panel

        def some(begin):
            self.library.prepare(
                compiled.address(w) + 4 * begin * by[0], min(step, outs - begin), ins, *by,
                turned, compiled.address(u) + 4 * 36 * ins * begin)
        in_threads(some, range(0, outs, step), self.threads)
        return Weights(u, bias, False)

    def convolve(self, x, weights, channels, out, mean=None, relu=True, pool=False, whole=None):
        """Fills out, and with pooling `whole` with what is pooled.

        `mean` is given for a first layer; `channels` are those of x that are no padding.
        """
        if weights.directly:
            self.library.first(
                compiled.address(x, x.dtype),
                *map(compiled.address, (mean, weights.w, weights.bias, out)), *x.shape,
                out.shape[3], x.dtype == numpy.uint8, bool(relu),
                self.each_thread(self.library.first_size(*x.shape[2:])), self.threads)
            return
        tiles = self.tiles(x)
        # As many blocks for every thread, and none longer than the cache likes.
        most = MOST_TILES * (2 if weights.w.nbytes > LARGE_WEIGHTS else 1)
        blocks = max(1, -(-tiles // (most * self.threads)) * self.threads)
        layer = self.layer(x, channels, -(-tiles // blocks), out, weights, whole, mean, relu, pool)
        self.run('convolve', layer, work=self.library.work_size(ctypes.byref(layer)))

    @staticmethod
    def tiles(x):
        return len(x) * -(-x.shape[1] // 4) * -(-x.shape[2] // 4)

    def spread_size(self, x, channels):
        """Floats of a point of x, or of a gradient of its shape, transformed to learn from."""
        return self.library.spread_size(self.layer(x, channels, self.tiles(x)), channels)

    @staticmethod
    def layer(x, channels, tiles, out=None, weights=(None, None), whole=None, mean=None,
              relu=False, pool=False):
        """struct layer, for `run`; the arrays must outlive it."""
        where = [compiled.address(a) for a in (out, whole, mean, *weights[:2])]
        return _Layer(compiled.address(x, x.dtype), *where, *x.shape[:3], channels, x.shape[3],
                      0 if out is None else out.shape[3], mean is not None,
                      x.dtype == numpy.uint8, relu, pool, tiles)

    def space(self, *sizes):
        """Flat arrays of so many floats, of any content; the next call hands them out again."""
        if len(self.scratch) < sum(sizes):
            self.scratch = empty(sum(sizes))
        return numpy.split(self.scratch[:sum(sizes)], numpy.cumsum(sizes)[:-1])

    def each_thread(self, floats):
        """The address of so many floats, of any content, of every thread's own."""
        if len(self.work) < floats * self.threads:
            self.work = empty(floats * self.threads)
        return compiled.address(self.work)

    def run(self, name, layer, *arrays, work=0):
        """Calls a function of the library, with `work` floats of each thread's own."""
        arrays = [compiled.address(a) for a in arrays]
        if work:
            arrays.append(self.each_thread(work))
        getattr(self.library, name)(layer, *arrays, self.threads)
