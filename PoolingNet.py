"""Networks that pool frame features over time, and answer once a sequence.

    model = PoolingNet(25088, 101, 'conv-pool', fc=(4096, 1024), maps=(512, 7, 7))

Ng et al. 2015, "Beyond Short Snippets: Deep Networks for Video Classification", section 3.1
and figure 2. A family says what joins neighbouring frames, and where in a row of fully
connected (fc) layers the maximum over all of time is taken:

    conv-pool     maximum over time -> fc layers
    late-pool     fc layers on each frame -> maximum over time
    slow-pool     maximum of 10 frames, every 5 -> first fc layer -> maximum over time -> the others
    local-pool    maximum of 10 frames, every 5 -> fc layers -> a softmax on all of these at once
    time-conv     256 kernels over 10 frames, every 5 -> maximum over time -> fc layers

and then the scores of the classes. Layers before the last pooling share their weights in time.
A feature is a vector (fc7), or the maps of the last convolution (pool5): then maxima are taken
at each place of the maps, and the kernels are 3x3 wide.

conv-pool and late-pool cannot see the order of frames; slow-pool sees which frames are near one
another, local-pool and time-conv their order.
"""
from typing import NamedTuple, Optional

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
import numpy

from engine.errors import UserError
from engine.learning.featurenet import FeatureNet
from engine.learning.sequences import reverse_append

# Frames that are joined, and from one such window to the next; kernels of time-conv.
SPAN, STRIDE, KERNELS = 10, 5, 256


class Family(NamedTuple):
    """Where in the network frames are joined."""
    method: str            # what results call it
    local: str             # what joins SPAN frames first: 'max', 'convolution' or ''
    before: Optional[int]  # fc layers before all of time is joined; None for all
    join: str = 'max'      # what joins all of time: 'max' or 'concatenate'


FAMILIES = {'conv-pool': Family('conv pooling', '', 0),
            'late-pool': Family('late pooling', '', None),
            'slow-pool': Family('slow pooling', 'max', 1),
            'local-pool': Family('local pooling', 'max', None, 'concatenate'),
            'time-conv': Family('time-domain convolution', 'convolution', 0)}


class PoolingNet(FeatureNet):
    """One answer from the features of all frames.

    Args:
        n_in (int): length D of a feature.
        n_classes (int): classes C.
        family: one of FAMILIES.
        fc: units of each fully connected layer; a ReLU stands behind each.
        maps: (channels, height, width) where features are maps, D = channels*height*width.
        steps (int): frames of a sequence; only local-pool is made for one length.
        dropout: ratios (on the input, between layers, before the scores). One choice is made
            a sequence, for all its steps, so that a maximum compares like with like.
    """
    once = True

    def __init__(self, n_in, n_classes, family, fc=(1024,), maps=None, steps=None,
                 dropout=(0.5, 0.5, 0.5)):
        super().__init__(n_in)
        self.family = FAMILIES[family]
        self.shape = dict(n_in=n_in, n_classes=n_classes, family=family, fc=list(fc),
                          maps=None if maps is None else [int(n) for n in maps],
                          steps=steps if self.family.join == 'concatenate' else None,
                          dropout=list(dropout))
        self.drop_in, self.drop_between, self.drop_out = dropout
        self.maps = tuple(self.shape['maps'] or (n_in, 1, 1))
        with self.init_scope():
            if self.family.local == 'convolution':
                channels, height, width = self.maps
                side = 1 if maps is None else 3
                self.time_conv = L.ConvolutionND(3, channels, KERNELS, (SPAN, side, side),
                                                 (STRIDE, 1, 1), (0, side // 2, side // 2))
                n_in = KERNELS * height * width
            self.fc = chainer.ChainList()
            for units in fc:
                self.fc.append(L.Linear(n_in, units))
                n_in = units
            if self.family.join == 'concatenate':
                n_in *= n_windows(steps)
            self.out = L.Linear(n_in, n_classes)

    def start_from_frames(self, vgg):
        """Takes fc6, fc7 and fc8 of a VGGNet_1024, those that fit; returns their names.

        The maps then go in as they are, as into fc6. With one frame conv-pool and late-pool
        answer as that network does.
        """
        links = dict(zip(('fc6', 'fc7', 'fc8'), (*self.fc, self.out)))
        taken = [name for name, link in links.items() if link.W.shape == vgg[name].W.shape]
        for name in taken:
            links[name].copyparams(vgg[name])
        return taken

    def __call__(self, xs, lengths=None):
        """Scores whole sequences.

        Args:
            xs: (T, B, D) float32 array of raw features.
            lengths: (B,) NumPy int, the real steps of each; None if all are. Padding stands
                at the end and changes nothing.

        Returns:
            Variable (B, C), scores before the softmax.
        """
        lengths = numpy.full(xs.shape[1], len(xs)) if lengths is None else numpy.asarray(lengths)
        h = drop(self.normalise(xs), self.drop_in)
        if self.family.local:
            h, lengths = whole_windows(h, lengths)
        if self.family.local == 'max':
            # As 10 is twice 5, a window is two neighbouring blocks of 5.
            blocks = h.reshape(-1, STRIDE, *h.shape[1:]).max(axis=1)
            h = self.xp.maximum(blocks[:-1], blocks[1:])
        elif self.family.local == 'convolution':
            h = self._convolve(h)
        layers, before = list(self.fc), self.family.before
        for layer in layers[:before]:
            h = self._layer(layer, h)
        h = self._join(h, lengths)
        for layer in layers[len(layers) if before is None else before:]:
            h = self._layer(layer, h)
        return self.out(h)

    def _layer(self, layer, h):
        """(T, B, n) or (B, n): a fully connected layer on each row."""
        last = layer is self.fc[-1]
        return drop(F.relu(layer(h, n_batch_axes=h.ndim - 1)),
                    self.drop_out if last else self.drop_between)

    def _convolve(self, h):
        steps, batch, _ = h.shape
        h = h.reshape(steps, batch, *self.maps).transpose(1, 2, 0, 3, 4)
        h = F.transpose(F.relu(self.time_conv(h)), (2, 0, 1, 3, 4))
        return drop(F.reshape(h, (*h.shape[:2], -1)), self.drop_between)

    def _join(self, h, lengths):
        if self.family.join == 'max':
            return max_over_time(h, lengths)
        if set(lengths) != {n_windows(self.shape['steps'])}:
            raise UserError(f'{self.family.method} takes sequences of the length it was trained '
                            f'on; add --test-steps {self.shape["steps"]}')
        return F.reshape(F.transpose(h, (1, 0, 2)), (h.shape[1], -1))

    def loss(self, xs, labels, lengths, class_weights=None):
        """Mean cross entropy of a batch of sequences; reports it with the accuracy.

        Args:
            class_weights: (C,) float32, what the loss of a sequence of each class counts.
        """
        scores, labels = self(xs, lengths), self.xp.asarray(labels)
        if class_weights is not None:
            class_weights = self.xp.asarray(class_weights)
        loss = F.softmax_cross_entropy(scores, labels, class_weight=class_weights)
        chainer.report({'loss': loss.array, 'accuracy': F.accuracy(scores, labels).array}, self)
        return loss


def n_windows(steps):
    """How many windows of SPAN frames, every STRIDE, take in all of `steps` frames."""
    return 1 + max(0, -(-(steps - SPAN) // STRIDE))


def whole_windows(xs, lengths):
    """Appends its reverse to each sequence until the last window is whole.

    So do sequences that are shorter than a window, and no frame is left out.

    Returns:
        (array (T, B, D), number of windows of each sequence (B,) int).
    """
    windows = numpy.array([n_windows(n) for n in lengths])
    wanted = SPAN + STRIDE * (windows - 1)
    if len(xs) == wanted.max() and (wanted == lengths).all():
        return xs, windows
    frames = numpy.zeros((wanted.max(), len(lengths)), int)
    for column, (real, n) in enumerate(zip(lengths, wanted)):
        frames[:n, column] = reverse_append(int(real), int(n))
    xp = chainer.backend.get_array_module(xs)
    return xs[xp.asarray(frames), xp.arange(len(lengths))], windows


def max_over_time(h, lengths):
    """(T, B, n) -> (B, n): the maximum of each sequence's first `lengths` steps.

    The gradient goes to one step alone, the first of those that are equal; F.max would send
    it to each of them.
    """
    array = chainer.as_array(h)
    xp = chainer.backend.get_array_module(array)
    real = numpy.arange(len(array))[:, None] < lengths
    if not real.all():
        array = xp.where(xp.asarray(real)[:, :, None], array, -numpy.inf)
    if not isinstance(h, chainer.Variable):
        return array.max(axis=0)
    first = array.argmax(axis=0).astype(numpy.int32)
    rows = F.reshape(F.transpose(h, (1, 2, 0)), (-1, len(array)))
    return F.reshape(F.select_item(rows, first.ravel()), first.shape)


def drop(h, ratio):
    """Dropout of (T, B, n) or (B, n), with the same choice at all steps of a sequence."""
    if not ratio or not chainer.config.train:
        return h
    xp = chainer.backend.get_array_module(h)
    return h * F.dropout(xp.ones(h.shape[-2:], h.dtype), ratio).array
