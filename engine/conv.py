"""Fast inference through a stack of 3x3 convolutions, ReLU and 2x2 max-pooling.

:class:`ConvStack` computes what Chainer's ``convolution_2d(h, W, b, pad=1)``, ``relu`` and
``max_pooling_2d(h, 2, stride=2)`` compute, without gradients, on the CPU, in float32. It uses
Winograd's F(4x4,3x3) (Lavin and Gray 2016, arXiv:1509.09308): 36 products for 16 outputs in
place of 144. Errors stay near 1e-5 of the largest output of a VGG-16.

Two kernels give numbers that agree to rounding:

- ``compiled``: winograd.c, built by the machine's C compiler on first use (engine/compiled.py);
- ``numpy``: the same in NumPy, where there is no C compiler or ``ENGINE_CONV=numpy`` is set.

Within a kernel a frame's numbers do not depend, bit for bit, on the other frames of its batch
or on the number of threads.
"""
import concurrent.futures
import ctypes
import functools
import os
import threading

import numpy

from engine.compiled import load

MOST_TILES = 28           # of a block, so that all their transforms stay in the L2 cache
LARGE_WEIGHTS = 16 << 20  # bytes, from where twice as many tiles save more in reading these
CACHED_BYTES = 24 << 20   # of a layer's input and output that several frames may fill together


def _out_size(size, pool):
    return -(-size // 2) if pool else size


# ---- the compiled kernel --------------------------------------------------------------------

class _Layer(ctypes.Structure):
    # struct layer of winograd.c
    _fields_ = ([(name, ctypes.c_void_p) for name in ('input', 'out', 'mean', 'u', 'bias')]
                + [(name, ctypes.c_int64) for name in (
                    'n', 'height', 'width', 'channels', 'stride_in', 'stride_out',
                    'first', 'bytes', 'relu', 'pool', 'tiles')])


@functools.lru_cache(maxsize=None)
def _library():
    """-> (the loaded kernel, its name), or (None, why there is none)."""
    library, version = load('winograd')
    if library is None:
        return None, version
    library.work_size.restype = ctypes.c_int64
    library.instructions.restype = ctypes.c_char_p
    library.prepare.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    library.convolve.argtypes = [ctypes.POINTER(_Layer), ctypes.POINTER(ctypes.c_int64),
                                 ctypes.c_void_p]
    library.prepare.restype = library.convolve.restype = None
    return library, f'{version}, {library.instructions().decode()}'


def _chosen(compiled=None):
    """The library to use, or None for NumPy: see :class:`ConvStack`."""
    wish = os.environ.get('ENGINE_CONV', '')
    if wish not in ('', 'compiled', 'numpy'):
        raise ValueError(f'ENGINE_CONV is {wish!r}: give compiled or numpy')
    if compiled is None:
        compiled = {'': None, 'compiled': True, 'numpy': False}[wish]
    if compiled is False:
        return None
    library, name = _library()
    if library is None and compiled:
        raise RuntimeError(f'the compiled convolution is not to be had: {name}')
    return library


def kernel_name(compiled=None):
    """What a ConvStack made now would run on, for logs: ``'compiled (gcc ..., avx512)'``,
    ``'numpy'``, or ``'numpy (why there is no compiled kernel)'``."""
    if _chosen(compiled) is not None:
        return f'compiled ({_library()[1]})'
    wanted = compiled is None and not os.environ.get('ENGINE_CONV')
    return f'numpy ({_library()[1]})' if wanted else 'numpy'


def _empty(shape, dtype=numpy.float32):
    """numpy.empty at a multiple of 64 bytes, so that no vector straddles two cache lines."""
    size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    raw = numpy.empty(size + 64, numpy.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + size].view(dtype).reshape(shape)


class _Compiled:
    """The stack on winograd.c. All threads share a layer, block by block; several frames go
    through a layer together where they are small enough to stay in the cache, because then
    its weights are read once for all of them."""

    def __init__(self, library, weights, biases, pools, relu, mean, threads):
        self.library = library
        self.lanes = library.lanes()
        self.relu, self.pools, self.threads = relu, pools, threads
        self.mean, self.no_mean = mean, numpy.zeros_like(mean)
        self.shapes = [w.shape[:2] for w in weights]
        self.u, self.biases = [], []
        for w, b in zip(weights, biases):
            outs = self._padded(len(w))
            u = _empty(36 * outs * w.shape[1])
            library.prepare(w.ctypes.data, *w.shape[:2], u.ctypes.data)
            self.u.append(u)
            self.biases.append(numpy.pad(b, (0, outs - len(b))))
        self.plan_of = None
        self.lock = threading.Lock()  # the buffers serve one call at a time

    def _padded(self, channels):
        return -(-channels // self.lanes) * self.lanes

    def _plan(self, n, height, width):
        """Sizes, frames a group, and buffers for a batch of up to n frames of this size."""
        if self.plan_of and self.plan_of[0] >= n and self.plan_of[1:] == (height, width):
            return
        self.sizes, self.groups, self.outs = [(height, width)], [], []
        for (outs, ins), pool in zip(self.shapes, self.pools):
            h, w = self.sizes[-1]
            self.sizes.append((_out_size(h, pool), _out_size(w, pool)))
            floats = h * w * self._padded(ins) + numpy.prod(self.sizes[-1]) * self._padded(outs)
            fitting = int(max(1, min(n, CACHED_BYTES // (4 * floats))))
            self.groups.append(max([fitting] + self.groups[-1:]))
        for held, size, (outs, _) in zip(self.groups[1:] + [n], self.sizes[1:], self.shapes):
            self.outs.append(_empty((held, *size, self._padded(outs))))
        self.work = [numpy.empty(0, numpy.float32)] * self.threads
        self.plan_of = (n, height, width)

    def __call__(self, x):
        with self.lock, concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            self._plan(*x.shape[:3])
            self._fill(len(self.u) - 1, x, pool)
            channels = self.shapes[-1][0]
            return numpy.ascontiguousarray(
                self.outs[-1][:len(x), :, :, :channels].transpose(0, 3, 1, 2))

    def _fill(self, level, x, pool):
        """The output of layer ``level`` for the frames ``x``, to the front of its buffer."""
        step = self.groups[level]
        for begin in range(0, len(x), step):
            part = x[begin:begin + step]
            if level:
                self._fill(level - 1, part, pool)
                part = self.outs[level - 1][:len(part)]
            self._layer(level, part, self.outs[level][begin:begin + len(part)], pool)

    def _layer(self, level, x, out, pool):
        n, height, width = x.shape[:3]
        tiles = n * -(-height // 4) * -(-width // 4)
        # As many blocks for every thread, and none longer than the cache likes.
        most = MOST_TILES * (2 if self.u[level].nbytes > LARGE_WEIGHTS else 1)
        blocks = -(-tiles // (most * self.threads)) * self.threads
        mean = self.mean if x.dtype == numpy.uint8 else self.no_mean
        layer = _Layer(
            x.ctypes.data, out.ctypes.data, mean.ctypes.data, self.u[level].ctypes.data,
            self.biases[level].ctypes.data, n, height, width, self.shapes[level][1],
            x.shape[3], out.shape[3], level == 0, x.dtype == numpy.uint8, self.relu,
            self.pools[level], -(-tiles // blocks))
        counter = ctypes.c_int64(0)
        size = self.library.work_size(ctypes.byref(layer))

        def work(number):
            if len(self.work[number]) < size:
                self.work[number] = _empty(size)
            self.library.convolve(layer, counter, self.work[number].ctypes.data)

        others = [pool.submit(work, number) for number in range(1, min(self.threads, tiles))]
        work(0)
        for other in others:
            other.result()


# ---- the same in NumPy ----------------------------------------------------------------------

# F(4x4,3x3) at the points 0, 1, -1, 2, -2 and infinity.
_G = numpy.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_B = numpy.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                  [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])
_A = numpy.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0],
                  [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_B2, _A2 = (numpy.kron(a, a).astype(numpy.float32) for a in (_B, _A))
BLOCK_FLOATS = 1 << 20  # of the transformed tiles of one block, so that it stays in the cache


def transformed_weights(w):
    """(outputs, inputs, 3, 3) -> (36, inputs, outputs) float32, as the tiles' products want them."""
    u = numpy.einsum('ik,jl,ockl->ijco', _G, _G, w.astype(numpy.float64))
    return numpy.ascontiguousarray(u.reshape(36, w.shape[1], len(w)).astype(numpy.float32))


class _Numpy:
    """The stack in NumPy: both transforms are matrix products over whole blocks of tiles. Each
    thread takes a frame; BLAS keeps to one thread, so that sums never depend on its choice."""

    def __init__(self, weights, biases, pools, relu, mean, threads):
        self.u = [transformed_weights(w) for w in weights]
        self.biases, self.pools, self.relu = biases, pools, relu
        self.mean, self.threads = mean, threads

    def __call__(self, x):
        from threadpoolctl import threadpool_limits  # with scikit-learn; here alone
        with threadpool_limits(1, 'blas'), \
                concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            return numpy.ascontiguousarray(numpy.stack(list(pool.map(self._frame, x))))

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
            v = (_B2 @ d).reshape(36, rows * across, ins)
            y = _A2 @ (v @ u).reshape(36, -1)
            out[top:top + rows] = y.reshape(4, 4, rows, across, outs).transpose(2, 0, 3, 1, 4)
        out = out.reshape(4 * down, 4 * across, outs)[:height, :width]
        if pool:  # the bias comes after: adding it keeps the order
            out = _pooled(out)
        out += bias
        return numpy.maximum(out, 0, out=out) if self.relu else out


def _pooled(x):
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
    weights = [numpy.ascontiguousarray(w, numpy.float32) for w, _, _ in layers]
    before = None
    for number, w in enumerate(weights):
        if w.ndim != 4 or w.shape[2:] != (3, 3) or before not in (None, w.shape[1]):
            raise ValueError(f'layer {number} has weights {w.shape}, not '
                             f'(outputs, {before or "inputs"}, 3, 3)')
        before = w.shape[0]
    biases = [numpy.zeros(len(w), numpy.float32) if b is None
              else numpy.ascontiguousarray(b, numpy.float32)
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
        mean = numpy.ascontiguousarray(
            numpy.broadcast_to(numpy.float32(mean), self.in_channels))
        library = _chosen(compiled)
        made = _Numpy if library is None else functools.partial(_Compiled, library)
        self.kernel = kernel_name(compiled)
        self._run = made(weights, biases, pools, bool(relu), mean, self.threads)

    def __call__(self, x):
        """x (frames, height, width, channels), uint8 or float32, channels last ->
        (frames, outputs, height, width) float32, C order, sizes halved (upwards) by each pooling.

        May be called from several threads. Raises ValueError for another shape or dtype.
        """
        x = numpy.ascontiguousarray(x)
        if x.ndim != 4 or x.shape[3] != self.in_channels or 0 in x.shape[1:]:
            raise ValueError(f'input is {x.shape}, not (frames, height, width, '
                             f'{self.in_channels})')
        if x.dtype not in (numpy.uint8, numpy.float32):
            raise ValueError(f'input is {x.dtype}, not uint8 or float32')
        if not len(x):
            return self._run(numpy.zeros((1, *x.shape[1:]), x.dtype))[:0]
        return self._run(x)


def usable_cores():
    """Cores that this process may run on: a batch system may give fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
