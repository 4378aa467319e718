"""VGG-16 (Simonyan & Zisserman 2014, configuration D), narrow or whole.

    model = VGGNet()                                      # 224x224, 1000 classes
    model = VGGNet(channels=(8, 16, 32, 32, 32), hidden=128, n_classes=60, input_size=64)

VGG.model holds its weights: Chainer's npz or HDF5, entries conv1_1/W ... fc8/b.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
import numpy

from engine.fast import (conv_gpu, conv_learn, conv_learn_gpu, kernelnames, linear,
                         winograd)
from engine.fast.conv import ConvStack
from engine.weights.initial import HeNormal
from engine.weights.modelfile import load_network
from engine.video.preprocessing import MEAN, mean_of, preprocess

CHANNELS = (64, 128, 256, 512, 512)
LAYERS_IN_BLOCK = (2, 2, 3, 3, 3)
MADE_BY = 'python convertWeights.py --help'


class VGGNet(chainer.Chain):
    """VGG-16.

    Args:
        channels: output channels of the five blocks of convolutions.
        hidden (int): units of fc6 and fc7.
        n_classes (int): units of fc8.
        input_size (int): side of the square input in pixels, a multiple of 32.

    `mean` is what its input has subtracted: preprocess(frames, model.mean).
    """

    # Layers that take several moments at once (FusionNet.py), and which: here none.
    taps = {}
    # Names of the layers that learn, the others being frozen (VGGNet_1024.py); None: any may.
    trained = None

    def __init__(self, channels=CHANNELS, hidden=4096, n_classes=1000, input_size=224):
        super().__init__()
        if input_size % 32:
            raise ValueError(f'input_size {input_size} is not a multiple of 32')
        self.shape = {'channels': list(channels), 'hidden': hidden, 'n_classes': n_classes,
                      'input_size': input_size}
        # He et al. 2015: without it thirteen ReLU layers do not train from scratch.
        he = HeNormal()
        self.conv_names = []
        self.mean, self.dropout = MEAN, 0.5
        self.fast, self._stacks = True, {}
        with self.init_scope():
            n_in = 3
            for block, (n_out, depth) in enumerate(zip(channels, LAYERS_IN_BLOCK), 1):
                for layer in range(1, depth + 1):
                    name = f'conv{block}_{layer}'
                    n_in *= self.joins(name)
                    setattr(self, name, L.Convolution2D(n_in, n_out, 3, pad=1, initialW=he))
                    self.conv_names.append(name)
                    n_in = n_out
            n_in *= self.joins('fc6') * (input_size // 32) ** 2
            self.fc6 = L.Linear(n_in, hidden, initialW=he)
            self.add_top(hidden, n_classes)

    def add_top(self, hidden, n_classes):
        """Adds fc7 and fc8; called inside init_scope."""
        self.fc7 = L.Linear(hidden, hidden, initialW=HeNormal())
        self.fc8 = L.Linear(hidden, n_classes)

    def joins(self, name):
        """How many moments a layer takes at once."""
        return len(self.taps.get(name, (0,)))

    def expect_input(self, factor):
        """Makes it answer to `factor` times an input as it did to that input.

        Each layer up to fc6 takes an equal share, which changes no later answer. Were it all
        in conv1_1, that layer would have tiny weights and huge gradients, and could not learn
        at the others' rate.
        """
        names = self.conv_names + ['fc6']
        share = factor ** (-1 / len(names))
        for name in names:
            factor *= share
            self[name].W.array *= share
            self[name].b.array *= factor

    def convolutions(self, x, names=None):
        """(N, 3, S, S) preprocessed float32, or frames (N, S, S, 3) as the bytes they are ->
        pool5, (N, C, S/32, S/32).

        With `names`, those layers alone, of x as they take it. engine/fast/conv.py does it, many
        times faster, or where gradients are needed engine/fast/conv_learn.py; on a GPU
        engine/fast/conv_gpu.py and conv_learn_gpu.py. `fast = False` turns all of them off.
        """
        names = self.conv_names if names is None else names
        if names and self.fast and not chainer.config.enable_backprop:
            return chainer.Variable(self._fast_convolutions(chainer.as_array(x), names))
        if x.dtype == numpy.uint8:
            x = preprocess(x, self.mean)
        layers = [(self._at_hand(name).W, self[name].b, self.pooled_after(name))
                  for name in names]
        learning = self._learning()
        if layers and self.fast and learning.serves(x, layers):
            return learning.conv_stack(x, layers)
        for name in names:
            x = F.relu(self[name](x))
            if self.pooled_after(name):
                x = F.max_pooling_2d(x, 2, stride=2)
        return x

    def _learning(self):
        """The module of convolutions that learn where the network is."""
        return conv_learn if self.xp is numpy else conv_learn_gpu

    def _fast_convolutions(self, x, names):
        def make():
            layers = [(self[name].W.array, self[name].b.array, self.pooled_after(name))
                      for name in names]
            mean = self.mean if layers[0][0].shape[1] == 3 else 0
            return (ConvStack(layers, mean=mean) if self.xp is numpy
                    else conv_gpu.make_stack(layers, self.xp, mean=mean))
        stack = self._copies(names, make)
        return stack(x if x.dtype == numpy.uint8 else x.transpose(0, 2, 3, 1))

    def linear(self, name, h):
        """fc6, fc7 or fc8 before its ReLU. On the CPU by engine/fast/linear.py; on a GPU, where no
        gradient is needed, fc6 from weights in float16."""
        y = None
        if self.fast and self.xp is numpy:
            layer, rows = self[name], h if h.ndim == 2 else F.reshape(h, (len(h), -1))
            y = linear.learning(rows, layer.W, layer.b)
        elif self.fast and name == 'fc6' and not chainer.config.enable_backprop:
            rows = chainer.as_array(h)
            y = chainer.Variable(self._copies([name], lambda: conv_gpu.HalfLinear(
                self.fc6.W.array, self.fc6.b.array, self.xp))(rows.reshape(len(rows), -1)))
        return self._at_hand(name)(h) if y is None else y

    def _copies(self, names, make):
        """What make() makes of some layers' weights, made again when these have changed."""
        gpu = self.xp is not numpy
        frozen = self.trained is not None and not set(names) & set(self.trained)

        def state():
            arrays = [p.array for name in names for p in (self[name].W, self[name].b)]
            if gpu and frozen:  # there asking costs more than computing
                return [*map(id, arrays), self.mean], arrays
            # A sample of each layer tells.
            return [*(float(a.ravel()[::101].sum(dtype=numpy.float64)) for a in arrays),
                    self.mean], None
        before, _, made = self._stacks.get(names[0], (None, None, None))
        if before != state()[0]:
            made = make()
            if gpu and frozen:  # its memory need not hold both
                for name in names:
                    self[name].to_device('@numpy')
                self.xp.get_default_memory_pool().free_all_blocks()
            self._stacks[names[0]] = *state(), made
        return made

    def kernel(self):
        """What computes it where it is now, in words."""
        on_cpu, name = self.xp is numpy, 'Chainer'
        if self.fast:
            name = winograd.kernel_name() if on_cpu else conv_gpu.kernel_name()
            if set(self.trained or ()) & set(self.conv_names):
                if not self._learning().available():
                    name += ', learning by Chainer'
                elif not on_cpu:
                    name += ', learning in TF32'
        return kernelnames.in_words(self.xp, convolutions=name)

    def forget_copies(self):
        """Has them made anew: for another kernel than they were made for."""
        self._stacks = {}

    def _at_hand(self, name):
        """A layer, back on the network's device if only its copies were there."""
        if self[name].device != self.device:
            self[name].to_device(self.device)
        return self[name]

    @staticmethod
    def pooled_after(name):
        """Whether a block ends, and a 2x2 pooling follows, after this convolution."""
        block, layer = name[len('conv'):].split('_')
        return int(layer) == LAYERS_IN_BLOCK[int(block) - 1]

    def bottom(self, x):
        """(N, 3, S, S) -> fc6 after its ReLU, (N, hidden)."""
        return F.relu(self.linear('fc6', self.convolutions(x)))

    def feature(self, x):
        """(N, 3, S, S) -> fc7's linear output, before ReLU and dropout."""
        return self.feature_above(self.bottom(x))

    def feature_above(self, h):
        """(N, hidden), what `bottom` gives -> fc7's linear output."""
        return self.linear('fc7', F.dropout(h, self.dropout))

    def top(self, h):
        """(N, hidden), what `bottom` gives -> (N, n_classes) scores before the softmax."""
        return self.linear('fc8', F.dropout(F.relu(self.feature_above(h)), self.dropout))

    def __call__(self, x):
        """(N, 3, S, S) preprocessed float32 -> (N, n_classes) scores before the softmax."""
        return self.top(self.bottom(x))


def load_vgg(path, made_by=MADE_BY, network=VGGNet, stream='rgb'):
    """Returns (VGGNet, card) from VGG.model, in the shape that its card tells."""
    model, card = load_network(network, path, made_by)
    model.mean = mean_of(card, path, stream)
    return model, card
