"""A stack of 3x3 convolutions, ReLU and 2x2 max-pooling that learns, on the CPU, in float32.

:func:`conv_stack` computes what Chainer's ``convolution_2d(h, W, b, pad=1)``, ``relu`` and
``max_pooling_2d(h, 2, stride=2)`` compute, and their gradients, with the kernel of
engine/fast/winograd.py, by Winograd's F(4x4,3x3):

- the gradient of a layer's input is a convolution, with its weights turned half round;
- that of its weights comes from 36 matrix products over all tiles of the input and of the
  gradient, both transformed (the same algorithm turned round: F(3x3,4x4)).

Between layers everything is channels last. Rounding stays near 1e-5 of the largest number.
"""
import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from engine import usable_cores
from engine.fast.buffers import borrow, give_back, lend
from engine.fast.compiled import plain
from engine.fast.winograd import Kernel, channels_first, chosen, out_size, weights_gradient

MOST_BYTES = 16 << 20  # of a layer's transformed input and gradient, so that the cache holds them


def available():
    """Whether winograd.c can be used; without it there are Chainer's own layers."""
    return chosen() is not None


def serves(x, layers):
    """Whether conv_stack takes this input."""
    return x.dtype == numpy.float32 and available()


def conv_stack(x, layers):
    """x (N, C, H, W) float32 -> (N, outputs, h, w), sizes halved (upwards) by each pooling.

    Args:
        x: Variable or array.
        layers: sequence of (W, b, pool_after): Variables W (outputs, inputs, 3, 3) and b
            (outputs,), and a bool. Each convolution is followed by a ReLU.

    Can be differentiated by x, W and b, once. Of equal numbers in a pooling window the first
    takes the gradient, as in Chainer.
    """
    return _ConvStack([bool(pool) for _, _, pool in layers]).apply(
        (x, *[p for W, b, _ in layers for p in (W, b)]))[0]


def check_stack(in_types):
    """Chainer's check of what a stack is given: x, then W and b of each layer."""
    expect = chainer.utils.type_check.expect
    expect(in_types[0].ndim == 4)
    channels = in_types[0].shape[1]
    for W, b in zip(in_types[1::2], in_types[2::2]):
        expect(W.dtype == numpy.float32, W.ndim == 4, W.shape[1] == channels,
               W.shape[2] == 3, W.shape[3] == 3, b.dtype == numpy.float32, b.ndim == 1,
               b.shape[0] == W.shape[0], in_types[0].dtype == numpy.float32)
        channels = W.shape[0]


class _ConvStack(chainer.FunctionNode):

    def __init__(self, pools):
        super().__init__()
        self.pools = pools
        self.kernel = shared_kernel()

    def check_type_forward(self, in_types):
        check_stack(in_types)

    def forward(self, inputs):
        x, *parameters = inputs
        self.retain_inputs(range(1, len(inputs), 2))
        self.no_mean = numpy.zeros(x.shape[1], numpy.float32)
        # Of each layer: input; output; and what was pooled to it, or None.
        self.held = []
        h = plain(x.transpose(0, 2, 3, 1))
        kernel = self.kernel
        with kernel.lock:
            for level, pool in enumerate(self.pools):
                W, b = map(plain, parameters[2 * level:2 * level + 2])
                n, height, width, _ = h.shape
                outs = kernel.padded(len(W))
                whole = borrow((n, height, width, outs)) if pool else None
                out = borrow((n, out_size(height, pool), out_size(width, pool), outs))
                prepared = kernel.prepare(W, b, level == 0, pool, memory=lend)
                kernel.convolve(h, prepared, W.shape[1], out, None if level else self.no_mean,
                                pool=pool, whole=whole)
                self.held.append((h, out, whole))
                h = out
        return channels_first(h[..., :len(W)]),

    def backward(self, indexes, grad_outputs):
        if chainer.config.enable_backprop:
            raise NotImplementedError('conv_stack has no second derivative')
        if not self.held:
            raise RuntimeError('conv_stack can be differentiated once: its buffers were used up')
        weights = [v.array for v in self.get_retained_inputs()]
        gradients = {}
        kernel = self.kernel
        with kernel.lock:
            gy = grad_outputs[0].array.transpose(0, 2, 3, 1)
            g = borrow(self.held[-1][1].shape)
            g[..., :gy.shape[3]] = gy
            g[..., gy.shape[3]:] = 0
            for level in reversed(range(len(weights))):
                (x, out, whole), W = self.held.pop(), weights[level]
                gz = borrow((*x.shape[:3], out.shape[3]))
                of_layer = kernel.layer(x, W.shape[1], 0, out, whole=whole, pool=self.pools[level])
                kernel.run('through_output', of_layer, g, gz)
                give_back(g, out, whole)
                wanted = min(indexes) <= 2 * level  # by something below
                if {1 + 2 * level, 2 + 2 * level} & set(indexes):
                    gradients[1 + 2 * level], gradients[2 + 2 * level] = self._of_weights(
                        x, gz, W.shape, level == 0)
                if wanted:
                    turned = kernel.prepare(W, numpy.zeros(W.shape[1], 'f'), turned=True,
                                            memory=lend)
                    g = borrow((*x.shape[:3], kernel.padded(W.shape[1])))
                    kernel.convolve(gz, turned, len(W), g, relu=False)
                give_back(gz)
                if not wanted:
                    break
            for _, out, whole in self.held:
                give_back(out, whole)
            self.held = []
            if 0 in indexes:
                gradients[0] = channels_first(g[..., :weights[0].shape[1]])
                give_back(g)
        return [chainer.Variable(gradients[i]) for i in indexes]

    def _of_weights(self, x, gz, shape, first):
        """Gradients of a layer's W (of this shape) and b from its input and the gradient gz of
        what comes before its ReLU."""
        kernel, (outs, ins) = self.kernel, shape[:2]
        of_frame = kernel.spread_size(x[:1], ins) + kernel.spread_size(gz[:1], outs)
        frames = max(1, min(len(x), MOST_BYTES // (4 * 36 * of_frame)))
        v, t, u = kernel.space(36 * kernel.spread_size(x[:frames], ins),
                               36 * kernel.spread_size(gz[:frames], outs), 36 * ins * gz.shape[3])
        u[...] = 0
        gb = numpy.zeros(gz.shape[3])
        for begin in range(0, len(x), frames):
            part, g = x[begin:begin + frames], gz[begin:begin + frames]
            tiles = kernel.tiles(part)
            of_input = kernel.layer(part, ins, tiles, g, mean=self.no_mean if first else None)
            kernel.run('spread_input', of_input, v, work=37 * kernel.padded(ins))
            kernel.run('spread_gradient', kernel.layer(g, g.shape[3], tiles), t)
            kernel.run('add_products', of_input, v, t, u)
            # Point 7 of the gradient's transform is the sum over a tile.
            of_point, of_tile = kernel.spread_size(g, outs), kernel.library.tile_stride(outs)
            sums = t[7 * of_point:][:tiles * of_tile].reshape(tiles, of_tile)
            gb += sums[:, :len(gb)].sum(axis=0, dtype=float)
        gW = weights_gradient(u.reshape(36, ins, -1)[:, :, :outs])
        return gW, gb[:outs].astype(numpy.float32)


def shared_kernel():
    """The one that all stacks share, and so its memory."""
    global _shared
    if _shared is None:
        _shared = Kernel(chosen(), usable_cores())
    return _shared


_shared = None
