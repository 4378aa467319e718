"""As engine/fast/conv_learn.py, on a GPU, by cuDNN: convolutions that learn.

float32, channels last, with products in TF32 (10 bits and float32's range, as PyTorch has its
convolutions). Forward, convolution, bias and ReLU are one graph of cuDNN; back, the gradients of a
layer's input and of its weights are one each.
"""
import warnings

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
from chainer.backends import cuda

from engine.fast.conv_gpu import build, find_cudnn, pooled
from engine.fast.conv_learn import check_stack

CHANNELS = 4  # of float32, that 16 bytes hold


class _Refused(Exception):
    """cuDNN has nothing for such a layer on this card."""


def available():
    """Whether cuDNN is there and has not refused the card."""
    return not _refusals and find_cudnn()[0] is not None


def serves(x, layers):
    """Whether conv_stack takes such an input: frames, and sizes that each pooling halves."""
    sizes = x.shape[2:]
    for _, _, pool in layers:
        if pool and any(size % 2 for size in sizes):
            return False
        sizes = [size // 2 for size in sizes] if pool else sizes
    return x.dtype == numpy.float32 and available()


def conv_stack(x, layers):
    """As engine.fast.conv_learn.conv_stack, for Variables and arrays on a GPU; see `serves`.

    Where cuDNN refuses the card it is Chainer's own, for good.
    """
    try:
        return _ConvStack([bool(pool) for _, _, pool in layers]).apply(
            (x, *[p for W, b, _ in layers for p in (W, b)]))[0]
    except _Refused as error:
        _refusals.append(error)
        warnings.warn(f'cuDNN fails ({error}): convolutions learn by Chainer')
    return by_chainer(x, layers)


def by_chainer(x, layers):
    """As conv_stack, by Chainer's own functions."""
    for W, b, pool in layers:
        x = F.relu(F.convolution_2d(x, W, b, pad=1))
        x = F.max_pooling_2d(x, 2, stride=2) if pool else x
    return x


_refusals = []


class _ConvStack(chainer.FunctionNode):

    def __init__(self, pools):
        super().__init__()
        self.pools = pools

    def check_type_forward(self, in_types):
        check_stack(in_types)

    def forward(self, inputs):
        x, *parameters = inputs
        self.xp = chainer.backend.get_array_module(x)
        self.retain_inputs(())
        self.cudnn = _CuDNN.here(self.xp)
        self.held = []  # of each layer: input, weights, output before its pooling
        h = self._padded(x.transpose(0, 2, 3, 1))
        for W, b, pool in zip(parameters[::2], parameters[1::2], self.pools):
            w = self._weights(W)
            y = self.xp.empty((*h.shape[:3], len(w)), numpy.float32)
            bias = self.xp.zeros(len(w), numpy.float32)
            bias[:len(b)] = b
            for what, *arrays in ('weights', h, y, w), ('input', y, w, h):
                self.cudnn.plan(what, *arrays)  # the way back must be there, too
            self.cudnn.run('forward', h, w, bias, y)
            self.held.append((h, w, y))
            h = y
            if pool:
                n, height, width, channels = y.shape
                h = self.xp.empty((n, height // 2, width // 2, channels), numpy.float32)
                pooled(self.xp, y, h)
        self.shapes = [W.shape for W in parameters[::2]]
        return self.xp.ascontiguousarray(h[..., :len(W)].transpose(0, 3, 1, 2)),

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise NotImplementedError('conv_stack has no second derivative')
        if not self.held:
            raise RuntimeError('conv_stack can be differentiated once: its buffers were used up')
        xp, gradients = self.xp, {}
        g = self._padded(grad_outputs[0].array.transpose(0, 2, 3, 1))
        for level in reversed(range(len(self.shapes))):
            (x, w, y), (outs, ins) = self.held.pop(), self.shapes[level][:2]
            through_output(xp, y, g, self.pools[level])
            g = y
            if {1 + 2 * level, 2 + 2 * level} & set(indexes):
                gw = xp.empty_like(w)
                self.cudnn.run('weights', x, g, gw)
                gradients[1 + 2 * level] = xp.ascontiguousarray(
                    gw[:outs, :, :, :ins].transpose(0, 3, 1, 2))
                # As a product: CuPy's sum over the first axes keeps few of the card's processors
                # busy, and takes longer than all else.
                rows = g.reshape(-1, g.shape[3])
                gradients[2 + 2 * level] = xp.ones(len(rows), numpy.float32).dot(rows)[:outs]
            if min(indexes) > 2 * level:  # nothing below wants any
                break
            gx = xp.empty_like(x)
            self.cudnn.run('input', g, w, gx)
            g = gx
        self.held = []
        if 0 in indexes:
            gradients[0] = xp.ascontiguousarray(
                g[..., :self.shapes[0][1]].transpose(0, 3, 1, 2))
        return [chainer.Variable(gradients[i]) for i in indexes]

    def _padded(self, x):
        """(n, h, w, c) with channels that are zeros, C-contiguous."""
        rest = -x.shape[3] % CHANNELS
        if not rest:
            return self.xp.ascontiguousarray(x)
        padded = self.xp.zeros((*x.shape[:3], x.shape[3] + rest), numpy.float32)
        padded[..., :x.shape[3]] = x
        return padded

    def _weights(self, W):
        """(outputs, inputs, 3, 3) -> (outputs, 3, 3, inputs), padded."""
        outs, ins = W.shape[:2]
        w = self.xp.zeros((outs + -outs % CHANNELS, 3, 3, ins + -ins % CHANNELS), numpy.float32)
        w[:outs, :, :, :ins] = W.transpose(0, 2, 3, 1)
        return w


class _CuDNN:
    """cuDNN on one device: plans, each made once for what is computed of which shapes."""

    on_device = {}

    @classmethod
    def here(cls, xp):
        """The one of the current device."""
        number = xp.cuda.Device().id if hasattr(xp, 'cuda') else None
        if number not in cls.on_device:
            cls.on_device[number] = cls(xp)
        return cls.on_device[number]

    def __init__(self, xp):
        self.xp, self.module, self.plans = xp, find_cudnn()[0], {}
        self.handle = self.module.create_handle()

    def plan(self, what, *arrays):
        """(graph, its tensors in the order of the arrays) of 'forward': input, weights, bias,
        output; 'weights': input, gradient, the weights' gradient; 'input': gradient, weights, the
        input's gradient."""
        key = what, *(a.shape for a in arrays)
        if key not in self.plans:
            try:
                self.plans[key] = _plan(self.module, self.handle, what, *key[1:])
            except Exception as error:  # cuDNN's own have no common class
                raise _Refused(str(error)) from error
        return self.plans[key]

    def run(self, what, *arrays):
        """Fills the last of the arrays, which are those of `plan`."""
        graph, tensors = self.plan(what, *arrays)
        if self.xp is not numpy:
            self.module.set_stream(handle=self.handle,
                                   stream=self.xp.cuda.get_current_stream().ptr)
        workspace = self.xp.empty(max(1, graph.get_workspace_size()), numpy.uint8)
        graph.execute(dict(zip(tensors, arrays)), workspace, handle=self.handle)


def _plan(cudnn, handle, what, *shapes):
    single = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=single, intermediate_data_type=single,
                          compute_data_type=single, handle=handle)

    def dims(shape):  # channels last in memory, second in cuDNN's order
        n, h, w, c = shape if len(shape) == 4 else (1, 1, 1, *shape)
        return [n, c, h, w], [c * h * w, 1, c * w, c]

    def tensor(name, shape):
        dim, stride = dims(shape)
        return graph.tensor(name=name, dim=dim, stride=stride, data_type=single)
    given = [tensor(f'{what}{k}', shape) for k, shape in enumerate(shapes[:-1])]
    how = dict(padding=[1, 1], stride=[1, 1], dilation=[1, 1])
    if what == 'forward':
        x, w, b = given
        y = graph.relu(input=graph.bias(input=graph.conv_fprop(image=x, weight=w, **how), bias=b))
    elif what == 'weights':
        y = graph.conv_wgrad(image=given[0], loss=given[1], **how)
    else:
        y = graph.conv_dgrad(loss=given[0], filter=given[1], **how)
    dim, stride = dims(shapes[-1])
    y.set_output(True).set_data_type(single).set_dim(dim).set_stride(stride)
    build(cudnn, graph)
    return graph, (*given, y)


def through_output(xp, y, g, pool):
    """Puts into y, the output of a ReLU, the gradient of what went in.

    Args:
        y: (n, height, width, channels) float32.
        g: that of the output, or if `pool` of its 2x2 maxima. Of equal numbers the first takes it.
    """
    if not pool:
        cuda.elementwise('T g', 'T y', 'if (y <= 0) y = 0; else y = g;', 'through_relu')(g, y)
        return
    cuda.elementwise(
        'T g, int32 width, int32 channels', 'raw T y',
        '''const int right = channels, below = width * channels;
           const long long row = i / (below / 2);  // of g, all frames' in one
           T *at = &y[row * 2 * below + (i % (below / 2)) / channels * 2 * channels
                      + i % channels];
           const T a = at[0], b = at[right], c = at[below], d = at[below + right];
           const int first = a >= b ? (c >= d ? (a >= c ? 0 : 2) : (a >= d ? 0 : 3))
                                    : (c >= d ? (b >= c ? 1 : 2) : (b >= d ? 1 : 3));
           const T most = first == 0 ? a : first == 1 ? b : first == 2 ? c : d;
           const T whole = most <= 0 ? (T)0 : g;
           at[0] = first == 0 ? whole : (T)0;
           at[right] = first == 1 ? whole : (T)0;
           at[below] = first == 2 ? whole : (T)0;
           at[below + right] = first == 3 ? whole : (T)0;''', 'through_pool_2x2')(
               g, y.shape[2], y.shape[3], y)
