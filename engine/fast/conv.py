"""Fast inference through a stack of 3x3 convolutions, ReLU and 2x2 max-pooling.

:class:`ConvStack` computes what Chainer's ``convolution_2d(h, W, b, pad=1)``, ``relu`` and
``max_pooling_2d(h, 2, stride=2)`` compute, without gradients, on the CPU, in float32, by
Winograd's F(4x4,3x3) (engine/fast/winograd.py). Errors stay near 5e-6 of a layer's largest output.

Two kernels give numbers that agree to rounding:

- ``compiled``: winograd.c, with direct.h for the first layer, built by the machine's C compiler on
  first use (compiled.py);
- ``numpy``: the same in NumPy, where there is no C compiler or ``ENGINE_CONV=numpy`` is set.

What is not a number, or infinite, spoils at least the outputs that it spoils in Chainer's layers,
and others of its tile. Within a kernel a frame's numbers do not depend, bit for bit, on the
other frames of its batch or on the number of threads.
"""
import functools

import numpy

from engine import usable_cores
from engine.fast.buffers import empty
from engine.fast.compiled import plain
from engine.fast.threads import in_threads, one_blas_thread
from engine.fast.winograd import (
    INPUT_TRANSFORM, OUTPUT_TRANSFORM, Kernel, channels_first, chosen, kernel_name, out_size,
    transformed_weights)

CACHED_BYTES = 24 << 20   # of a layer's input and output that several frames may fill together
BLOCK_FLOATS = 1 << 20    # NumPy: of a block's transformed tiles, so that it stays in the cache


# ---- the compiled kernel --------------------------------------------------------------------

class _Compiled:
    """The stack on winograd.c. All threads share a layer, block by block; several frames go
    through a layer together where they are small enough to stay in the cache, because then
    its weights are read once for all of them."""

    def __init__(self, library, weights, biases, pools, relu, mean, threads):
        self.kernel = Kernel(library, threads)
        self.relu, self.pools = relu, pools
        self.mean, self.no_mean = mean, numpy.zeros_like(mean)
        self.shapes = [w.shape[:2] for w in weights]
        self.prepared = [self.kernel.prepare(w, b, level == 0, pool)
                         for level, (w, b, pool) in enumerate(zip(weights, biases, pools))]
        self.plan_of = None

    def _plan(self, n, height, width):
        """Sizes, frames a group, and buffers for a batch of up to n frames of this size."""
        if self.plan_of and self.plan_of[0] >= n and self.plan_of[1:] == (height, width):
            return
        self.plan_of, padded = None, self.kernel.padded
        self.sizes, self.groups, self.outs = [(height, width)], [], []
        for (outs, ins), pool in zip(self.shapes, self.pools):
            h, w = self.sizes[-1]
            self.sizes.append((out_size(h, pool), out_size(w, pool)))
            floats = h * w * padded(ins) + numpy.prod(self.sizes[-1]) * padded(outs)
            fitting = int(max(1, min(n, CACHED_BYTES // (4 * floats))))
            self.groups.append(max([fitting] + self.groups[-1:]))
        for held, size, (outs, _) in zip(self.groups[1:] + [n], self.sizes[1:], self.shapes):
            self.outs.append(empty((held, *size, padded(outs))))
        self.plan_of = (n, height, width)

    def __call__(self, x):
        with self.kernel.lock:  # it guards the buffers, too
            self._plan(*x.shape[:3])
            self._fill(len(self.shapes) - 1, x)
            return channels_first(self.outs[-1][:len(x), :, :, :self.shapes[-1][0]])

    def _fill(self, level, x):
        """The output of layer ``level`` for the frames ``x``, to the front of its buffer."""
        step = self.groups[level]
        mean = self.mean if x.dtype == numpy.uint8 else self.no_mean
        for begin in range(0, len(x), step):
            part, out = x[begin:begin + step], self.outs[level][begin:begin + step]
            if level:
                self._fill(level - 1, part)
                part = self.outs[level - 1][:len(part)]
            self.kernel.convolve(part, self.prepared[level], self.shapes[level][1], out[:len(part)],
                                 None if level else mean, self.relu, self.pools[level])


# ---- the same in NumPy ----------------------------------------------------------------------

class _Numpy:
    """The stack in NumPy: both transforms are matrix products over whole blocks of tiles. Each
    thread takes a frame; BLAS keeps to one thread, so that sums never depend on its choice."""

    def __init__(self, weights, biases, pools, relu, mean, threads):
        self.u = [transformed_weights(w) for w in weights]
        self.biases, self.pools, self.relu = biases, pools, relu
        self.mean, self.threads = mean, threads

    def __call__(self, x):
        with one_blas_thread():
            return numpy.ascontiguousarray(numpy.stack(in_threads(self._frame, x, self.threads)))

    def _frame(self, x):
        h = x - self.mean if x.dtype == numpy.uint8 else x
        for layer in zip(self.u, self.biases, self.pools):
            h = self._layer(h, *layer)
        return h.transpose(2, 0, 1)

    def _layer(self, x, u, bias, pool):
        (height, width, ins), outs = x.shape, u.shape[2]
        down, across = -(-height // 4), -(-width // 4)
        padded = numpy.zeros((4 * down + 2, 4 * across + 2, ins), numpy.float32)
        padded[1:height + 1, 1:width + 1] = x
        out = numpy.empty((down, 4, across, 4, outs), numpy.float32)
        step = max(1, BLOCK_FLOATS // (36 * across * max(ins, outs)))
        for top in range(0, down, step):
            rows = min(step, down - top)
            patches = numpy.lib.stride_tricks.sliding_window_view(
                padded[4 * top:4 * (top + rows) + 2], (6, 6), (0, 1))[::4, ::4]
            d = numpy.ascontiguousarray(patches.transpose(3, 4, 0, 1, 2)).reshape(36, -1)
            v = (INPUT_TRANSFORM @ d).reshape(36, rows * across, ins)
            y = OUTPUT_TRANSFORM @ (v @ u).reshape(36, -1)
            out[top:top + rows] = y.reshape(4, 4, rows, across, outs).transpose(2, 0, 3, 1, 4)
        out = out.reshape(4 * down, 4 * across, outs)[:height, :width]
        if pool:  # the bias comes after: adding it keeps the order
            out = pooled(out)
        out += bias
        return numpy.maximum(out, 0, out=out) if self.relu else out


def pooled(x):
    """2x2 maxima of (height, width, channels); an odd last row or column stands alone."""
    for axis in (0, 1):
        x = x.swapaxes(0, axis)
        even, odd = x[0::2], x[1::2]
        most = even.copy()
        numpy.maximum(even[:len(odd)], odd, out=most[:len(odd)])
        x = most.swapaxes(0, axis)
    return x


# ---- what callers see -----------------------------------------------------------------------

def check_layers(layers):
    """-> (weights, biases, pools): lists of float32 arrays, float32 arrays, bools.

    Raises ValueError for weights that do not fit together.
    """
    layers = list(layers)
    if not layers:
        raise ValueError('a ConvStack needs at least one layer')
    weights = [plain(w) for w, _, _ in layers]
    before = None
    for number, w in enumerate(weights):
        if w.ndim != 4 or w.shape[2:] != (3, 3) or before not in (None, w.shape[1]):
            raise ValueError(f'layer {number} has weights {w.shape}, not '
                             f'(outputs, {before or "inputs"}, 3, 3)')
        before = w.shape[0]
    biases = [numpy.zeros(len(w), numpy.float32) if b is None
              else plain(b)
              for w, (_, b, _) in zip(weights, layers)]
    for number, (w, b) in enumerate(zip(weights, biases)):
        if b.shape != (len(w),):
            raise ValueError(f'layer {number} has {len(w)} outputs and biases {b.shape}')
    return weights, biases, [bool(pool) for _, _, pool in layers]


class ConvStack:
    """Convolutions 3x3 (stride 1, padding 1), each with bias, ReLU and, where asked, 2x2
    max-pooling, for inference.

    Args:
        layers: sequence of ``(W, b, pool_after)``, W (outputs, inputs, 3, 3), b (outputs,) or
            None, pool_after a bool. NumPy arrays; transformed here once, so later changes to
            them are not seen.
        relu: whether a ReLU follows every convolution.
        mean: (channels,) or a number, subtracted from every pixel of an input of bytes; what
            lies outside the frame is zero after that, as when the mean is taken before.
            Float32 is taken as it is: its mean is off already.
        threads: how many to use; None is every core that this process may run on.
        compiled: True asks for winograd.c and raises RuntimeError where it cannot be built,
            False for NumPy; None takes the first that works, or what ENGINE_CONV says.

    Raises ValueError for weights that do not fit together.
    """

    def __init__(self, layers, relu=True, mean=0, threads=None, compiled=None):
        weights, biases, pools = check_layers(layers)
        self.in_channels, self.out_channels = weights[0].shape[1], len(weights[-1])
        self.threads = threads or usable_cores()
        mean = plain(numpy.broadcast_to(numpy.float32(mean), self.in_channels))
        library = chosen(compiled)
        made = _Numpy if library is None else functools.partial(_Compiled, library)
        self.kernel = kernel_name(compiled)
        self._run = made(weights, biases, pools, bool(relu), mean, self.threads)

    def __call__(self, x):
        """x (frames, height, width, channels), uint8 or float32, channels last ->
        (frames, outputs, height, width) float32, C order, sizes halved (upwards) by each pooling.

        May be called from several threads. Raises ValueError for another shape or dtype.
        """
        x = plain(x, None)
        if x.ndim != 4 or x.shape[3] != self.in_channels or 0 in x.shape[1:]:
            raise ValueError(f'input is {x.shape}, not (frames, height, width, '
                             f'{self.in_channels})')
        if x.dtype not in (numpy.uint8, numpy.float32):
            raise ValueError(f'input is {x.dtype}, not uint8 or float32')
        if not len(x):
            return self._run(numpy.zeros((1, *x.shape[1:]), x.dtype))[:0]
        return self._run(x)
