"""The stack of engine/fast/conv.py on a GPU, through CuPy: convolutions for inference.

Two ways, the first that the machine has:

- ``cudnn``: float16, channels last. Convolution, bias and ReLU are one kernel of cuDNN, which
  the packages nvidia-cudnn-cu13 (or -cu12) and nvidia-cudnn-frontend bring; CuPy itself has none.
- ``products``: Winograd's F(4x4,3x3) as in engine/fast/conv.py, in float32, by CuPy's matrix
  products.

ENGINE_CONV_GPU=cudnn or products asks for one. Halves reach to 65504 only, and ImageNet's VGG-16,
fed with 0-255, gives 12800 after its third block: all numbers are carried at a sixteenth, which
costs no digit.

Both ways hold no name of CuPy: `xp` may be NumPy, as in the tests.
"""
import importlib
import os
import warnings

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
from chainer.backends import cuda

from engine.errors import UserError
from engine.fast.conv import check_layers
from engine.fast.cudagraphs import can_record, recorded
from engine.fast.winograd import INPUT_TRANSFORM, OUTPUT_TRANSFORM, transformed_weights

SCALE = 1 / 16
CHANNELS = 8              # of halves, that tensor cores take at once
GROUP_BYTES = 96 << 20    # of a layer's input and output: more frames go through it by groups
BLOCK_FLOATS = 1 << 25    # of the transformed tiles of one block of the products


class HalfError(ValueError):
    """A weight is too large for float16."""


def find_cudnn():
    """-> (the module cudnn, its version), or (None, why there is none)."""
    wish = os.environ.get('ENGINE_CONV_GPU', '')
    if wish not in ('', 'cudnn', 'products'):
        raise UserError(f'ENGINE_CONV_GPU is {wish!r}: give cudnn or products')
    if wish == 'products':
        return None, 'ENGINE_CONV_GPU'
    try:
        cudnn = importlib.import_module('cudnn')
        return cudnn, cudnn.backend_version_string()
    except Exception as error:  # not there, or not for this driver
        if wish:
            raise UserError(f'ENGINE_CONV_GPU is {wish!r}, but cuDNN is not to be had: '
                            f'{error}') from None
        return None, f'no cuDNN: {error}'


class GPUStack:
    """As engine.fast.conv.ConvStack, on a GPU.

    Args:
        layers, relu, mean: as for ConvStack; arrays of NumPy or CuPy.
        xp: cupy.
        cudnn: the module, or None for the products.
        kernel: its name, for logs.

    Raises:
        ValueError: weights that do not fit together, or, as HalfError, into float16.
    """

    def __init__(self, layers, relu=True, mean=0, xp=None, cudnn=None, kernel=None):
        layers = [tuple(cuda.to_cpu(a) if a is not None and not numpy.isscalar(a) else a
                        for a in layer) for layer in layers]
        weights, biases, pools = check_layers(layers)
        self.xp, self.relu, self.pools = xp, relu, pools
        self.in_channels = weights[0].shape[1]
        self.mean = xp.asarray(numpy.broadcast_to(numpy.float32(mean), self.in_channels))
        self.no_mean = xp.zeros_like(self.mean)
        self.kernel = kernel or ('cudnn' if cudnn else 'products')
        how = xp, weights, biases, pools, relu
        self._way = _Halves(*how, cudnn) if cudnn else _Products(*how)
        # Whether cuDNN serves this card shows when it is first asked.
        self._instead = how if cudnn and not os.environ.get('ENGINE_CONV_GPU') else None

    def __call__(self, x):
        """x (frames, height, width, channels), uint8 or float32, on the GPU ->
        (frames, outputs, height, width) float32, sizes halved (upwards) by each pooling.

        The mean is taken off bytes; float32 is taken as it is.
        """
        if x.ndim != 4 or x.shape[3] != self.in_channels or x.dtype not in ('u1', 'f4'):
            raise ValueError(f'input is {x.shape} of {x.dtype}, not (frames, height, width, '
                             f'{self.in_channels}) of uint8 or float32')
        mean = self.mean if x.dtype == 'u1' else self.no_mean
        try:
            y = self._way(x, mean)
        except Exception as error:
            if self._instead is None or isinstance(error, MemoryError):
                raise
            warnings.warn(f'cuDNN fails ({error}): convolutions by products in float32')
            self.kernel = 'GPU, products, float32 (cuDNN fails)'
            self._way = _Products(*self._instead)
            y = self._way(x, mean)
        self._instead = None
        return self.xp.ascontiguousarray(y.transpose(0, 3, 1, 2))


def kernel_name():
    """What a stack made now would run on, for logs: 'cudnn 9.1, float16' or 'products, float32'."""
    cudnn, version = find_cudnn()
    return f'cudnn {version}, float16' if cudnn else f'products, float32 ({version})'


def make_stack(layers, xp, relu=True, mean=0):
    """A GPUStack on what this machine has."""
    return GPUStack(layers, relu, mean, xp, find_cudnn()[0], f'GPU, {kernel_name()}')


def _half(xp, array):
    array = array.astype(numpy.float16)
    if not numpy.isfinite(array).all():
        raise HalfError('a weight does not fit into float16')
    return xp.asarray(array)


class HalfLinear:
    """A linear layer for inference with weights in float16: half the memory to read.

    Args:
        w (n_out, n_in), b (n_out,) or None: float32, NumPy or CuPy.
    """

    def __init__(self, w, b, xp):
        self.w = _half(xp, numpy.ascontiguousarray(cuda.to_cpu(w).T))
        self.b = None if b is None else xp.asarray(b)

    def __call__(self, x):
        """(N, n_in) float32 -> (N, n_out) float32."""
        y = ((x * SCALE).astype(numpy.float16) @ self.w).astype(numpy.float32)
        y *= 1 / SCALE
        return y if self.b is None else y + self.b


# ---- cuDNN, in float16 ----------------------------------------------------------------------

class _Halves:
    """One graph of cuDNN for each layer and size: convolution, bias, ReLU.

    Several frames go through a layer together as far as GROUP_BYTES allows, so that a larger
    batch takes hardly more memory.
    """

    def __init__(self, xp, weights, biases, pools, relu, cudnn):
        self.xp, self.cudnn, self.pools, self.relu = xp, cudnn, pools, relu
        self.handle = cudnn.create_handle()
        self.outs = len(weights[-1])
        self.weights, self.biases = [], []
        for w, b in zip(weights, biases):
            more = [(0, -n % CHANNELS) for n in w.shape[:2]]
            self.weights.append(_half(xp, numpy.ascontiguousarray(
                numpy.pad(w, [*more, (0, 0), (0, 0)]).transpose(0, 2, 3, 1))))
            self.biases.append(_half(xp, numpy.pad(b, more[0]) * SCALE))
        self.plans, self.most = {}, 1
        self.workspaces = [xp.empty(1, numpy.uint8)]  # graphs go on using the smaller ones
        self.recordings = {}
        # Of all graphs together; a size's first run leaves there what its graph will need.
        self.memory = xp.cuda.MemoryPool() if can_record(xp) else None

    def __call__(self, x, mean):
        n = len(x)
        # A clip's last, shorter batch is filled up to a quarter of a whole one, so that a
        # size needs few plans. What stands in the rest does not matter.
        self.most = max(self.most, n)
        quarter = -(-self.most // 4)
        filled = min(self.most, max(1, -(-n // quarter)) * quarter)
        if filled > n:
            whole = self.xp.zeros((filled, *x.shape[1:]), x.dtype)
            whole[:n] = x
            x = whole
        return self._run(x, mean)[:n]

    def _run(self, x, mean):
        """As _forward; from the second time on that a size comes, by a CUDA graph."""
        if self.memory is None:
            return self._forward(x, mean)
        key = x.shape, x.dtype.char
        with self.xp.cuda.using_allocator(self.memory.malloc):
            if key not in self.recordings:  # the first time makes the plans
                self.recordings[key] = None
                return self._forward(x, mean)
            if self.recordings[key] is None:
                self.recordings[key] = self._recorded(x, mean)
        graph, given, result = self.recordings[key]
        if graph is None:
            return self._forward(x, mean)
        given[...] = x
        graph.launch()
        return result.copy()

    def _recorded(self, x, mean):
        """(graph, its input, its output)"""
        made, given = [None], self.xp.empty_like(x)
        graph = recorded(self.xp, lambda: made.append(self._forward(given, mean)))
        return graph, given, made[-1]

    def _forward(self, x, mean):
        self.cudnn.set_stream(handle=self.handle, stream=_stream(self.xp))
        y = self._fill(len(self.weights) - 1, x, mean)
        return y[..., :self.outs].astype(numpy.float32) * (1 / SCALE)

    def _fill(self, level, x, mean):
        """The output of layer `level` for the frames x, (n, h, w, channels) halves."""
        xp = self.xp
        if level < 0:
            return halves(xp, x, mean, self.weights[0].shape[3])
        shapes = [x.shape[1:3]]
        for pool in self.pools[:level + 1]:
            shapes.append(tuple(-(-size // 2) for size in shapes[-1]) if pool else shapes[-1])
        (outs, _, _, ins), pool = self.weights[level].shape, self.pools[level]
        floats = numpy.prod(shapes[level]) * (ins + outs)
        groups = -(-len(x) * int(floats) * 2 // GROUP_BYTES)
        step = -(-len(x) // groups)
        result = xp.empty((len(x), *shapes[level + 1], outs), numpy.float16)
        for begin in range(0, len(x), step):
            part = self._fill(level - 1, x[begin:begin + step], mean)
            out = result[begin:begin + step]
            y = xp.empty((*part.shape[:3], outs), numpy.float16) if pool else out
            self._layer(level, part, y)
            if pool:
                pooled(xp, y, out)
        return result

    def _layer(self, level, x, y):
        key = level, x.shape
        if key not in self.plans:
            self.plans[key] = plan(self.cudnn, x.shape, len(self.weights[level]), self.relu,
                                   handle=self.handle)
        graph, tensors = self.plans[key]
        size = graph.get_workspace_size()
        if size > self.workspaces[-1].size:
            self.workspaces.append(self.xp.empty(size, numpy.uint8))
        graph.execute(dict(zip(tensors, (x, self.weights[level], self.biases[level], y))),
                      self.workspaces[-1], handle=self.handle)


def plan(cudnn, shape, outs, relu, **how):
    """A graph of cuDNN ready to run, and its tensors (input, weights, bias, output).

    Args:
        shape: (n, height, width, channels) of the input, a multiple of CHANNELS.
        outs (int): channels of the output.
        how: handle, or for a plan without a GPU device_property.
    """
    half, single = cudnn.data_type.HALF, cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=half, intermediate_data_type=single,
                          compute_data_type=single, **how)

    def tensor(name, n, c, h, w):  # channels last in memory
        return graph.tensor(name=name, dim=[n, c, h, w], stride=[c * h * w, 1, c * w, c],
                            data_type=half)
    n, height, width, ins = shape
    x = tensor('x', n, ins, height, width)
    w = tensor('w', outs, ins, 3, 3)
    # In float16 too: with a bias of another type cuDNN has fewer and slower kernels.
    b = tensor('b', 1, outs, 1, 1)
    y = graph.conv_fprop(image=x, weight=w, padding=[1, 1], stride=[1, 1], dilation=[1, 1])
    y = graph.bias(input=y, bias=b)
    if relu:
        y = graph.relu(input=y)
    y.set_output(True).set_data_type(half)
    build(cudnn, graph, there='device_property' not in how)
    return graph, (x, w, b, y)


def build(cudnn, graph, there=True):
    """Makes a graph ready to run, by the plan that cuDNN takes for its fastest.

    Args:
        there: whether the GPU that is to run it can be asked if it does.
    """
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    if there:
        graph.check_support()
    graph.build_plans()


def _stream(xp):
    return 0 if xp is numpy else xp.cuda.get_current_stream().ptr


def halves(xp, x, mean, channels):
    """x (n, h, w, c) less mean (c,), times SCALE, as halves of so many channels, the rest zeros."""
    if xp is numpy:
        h = xp.zeros((*x.shape[:3], channels), numpy.float16)
        h[..., :x.shape[3]] = (x - mean) * numpy.float32(SCALE)
        return h
    h = xp.empty((*x.shape[:3], channels), numpy.float16)
    cuda.elementwise(
        'raw S x, raw float32 mean, int32 ins, int32 outs, float32 scale', 'float16 h',
        '''const int k = i % outs;
           h = k < ins ? (x[i / outs * ins + k] - mean[k]) * scale : 0.0f;''', 'halves')(
               xp.ascontiguousarray(x), mean, x.shape[3], channels, SCALE, h)
    return h


# Eight halves a thread, 16 bytes: what memory likes.
POOL_HALVES = r'''
#include <cuda_fp16.h>

extern "C" __global__ void pool_halves(const uint4 *x, uint4 *y, long long size, int height,
                                       int width, int channels)
{
    const int down = (height + 1) / 2, across = (width + 1) / 2;
    for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < size;
         k += (long long)gridDim.x * blockDim.x) {
        long long rest = k / channels;
        const int j = rest % across * 2, i = (rest /= across) % down * 2;
        const uint4 *at = x + ((rest / down * height + i) * width + j) * channels + k % channels;
        // An odd last row or column stands alone.
        const long long right = j + 1 < width ? channels : 0;
        const long long below = i + 1 < height ? (long long)width * channels : 0;
        uint4 corners[4] = {at[0], at[right], at[below], at[right + below]};
        for (int c = 1; c < 4; c++)
            for (int part = 0; part < 4; part++) {
                __half2 *most = reinterpret_cast<__half2 *>(&corners[0]) + part;
                // What is not a number wins, as in NumPy.
                *most = __hmax2_nan(*most, reinterpret_cast<__half2 *>(&corners[c])[part]);
            }
        y[k] = corners[0];
    }
}
'''


def pooled(xp, x, out):
    """2x2 maxima of (n, h, w, c) into out; an odd last row or column stands alone."""
    if xp is not numpy and x.dtype == numpy.float16:
        (_, height, width, channels), size = x.shape, out.size // CHANNELS
        cuda.raw(POOL_HALVES, 'pool_halves')(
            (min(-(-size // 256), 1 << 16),), (256,),
            (x, out, numpy.int64(size), numpy.int32(height), numpy.int32(width),
             numpy.int32(channels // CHANNELS)))
        return
    odd = [(0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)]
    if any(more for _, more in odd):
        x = xp.pad(x, odd, mode='edge')
    corners = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    if xp is numpy:
        out[...] = numpy.maximum.reduce(corners)
    else:
        cuda.elementwise('T a, T b, T c, T d', 'T y',
                         '''// What is not a number wins, as in NumPy.
                            const T e = a > b || a != a ? a : b;
                            const T f = c > d || c != c ? c : d;
                            y = e > f || e != e ? e : f;''', 'pool_2x2')(*corners, out)


# ---- Winograd by products, in float32 -------------------------------------------------------

class _Products:
    """As engine.fast.conv._Numpy, all frames of a block of tile rows at once."""

    def __init__(self, xp, weights, biases, pools, relu):
        self.xp, self.pools, self.relu = xp, pools, relu
        self.u = [xp.asarray(transformed_weights(w)) for w in weights]
        self.biases = [xp.asarray(b) for b in biases]
        self.b2, self.a2 = xp.asarray(INPUT_TRANSFORM), xp.asarray(OUTPUT_TRANSFORM)

    def __call__(self, x, mean):
        h = x.astype(numpy.float32) - mean
        for layer in zip(self.u, self.biases, self.pools):
            h = self._layer(h, *layer)
        return h

    def _layer(self, x, u, bias, pool):
        xp = self.xp
        (n, height, width, ins), outs = x.shape, u.shape[2]
        down, across = -(-height // 4), -(-width // 4)
        padded = xp.zeros((n, 4 * down + 2, 4 * across + 2, ins), numpy.float32)
        padded[:, 1:height + 1, 1:width + 1] = x
        frame, row, column, channel = padded.strides
        patches = xp.lib.stride_tricks.as_strided(
            padded, (6, 6, n, down, across, ins),
            (row, column, frame, 4 * row, 4 * column, channel))
        out = xp.empty((n, down, 4, across, 4, outs), numpy.float32)
        step = max(1, BLOCK_FLOATS // (36 * n * across * max(ins, outs)))
        for top in range(0, down, step):
            rows = min(step, down - top)
            d = xp.ascontiguousarray(patches[:, :, :, top:top + rows]).reshape(36, -1)
            v = (self.b2 @ d).reshape(36, n * rows * across, ins)
            y = self.a2 @ (v @ u).reshape(36, -1)
            out[:, top:top + rows] = y.reshape(4, 4, n, rows, across, outs).transpose(
                2, 3, 0, 4, 1, 5)
        out = out.reshape(n, 4 * down, 4 * across, outs)[:, :height, :width]
        if pool:  # the bias comes after: adding it keeps the order
            whole = out
            out = xp.empty((n, -(-height // 2), -(-width // 2), outs), numpy.float32)
            pooled(xp, whole, out)
        out = out + bias
        return xp.maximum(out, 0, out=out) if self.relu else out
