"""VGG-16 with a narrow top for actions: fc7 4096 -> 1024, fc8 1024 -> classes.

The convolutions and fc6 come from VGG.model and stay as they are; fc7 and fc8
are new. The feature of a frame is fc7's linear output, before ReLU and dropout.
"""
import math

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
import numpy

from VGGNet import CHANNELS, LAYERS_IN_BLOCK, VGGNet
from engine.video.preprocessing import FLOW_MEAN
from engine.weights.initial import all_but_he, chosen, the_same

TRAINED = ('fc7', 'fc8')
# Which layers learn, from the top (Karpathy et al. 2014, section 4.2): 2 is the original's.
# Of 'scratch' the start differs, not what learns.
CONVOLUTIONS = tuple(f'conv{block}_{layer}' for block, depth in enumerate(LAYERS_IN_BLOCK, 1)
                     for layer in range(1, depth + 1))
TRAIN_LAYERS = {'1': ('fc8',), '2': TRAINED, '3': ('fc6', *TRAINED),
                'all': (*CONVOLUTIONS, 'fc6', *TRAINED),
                'scratch': (*CONVOLUTIONS, 'fc6', *TRAINED)}
MADE_BY = 'python frameBasedTrain.py'


class VGGNet_1024(VGGNet):
    """VGG-16 whose top two layers are new.

    Args:
        n_features (int): units of fc7, the length of a frame's feature.
        The others as in VGGNet.

    `trained` names the layers that learn, all those above the lowest of them; `offsets` are
    the frames that it sees of a clip, less the frame that its feature stands for.
    """

    offsets = (0,)

    def __init__(self, channels=CHANNELS, hidden=4096, n_classes=101, input_size=224,
                 n_features=1024):
        self.n_features, self.trained = n_features, TRAINED
        super().__init__(channels, hidden, n_classes, input_size)
        self.shape['n_features'] = n_features

    def add_top(self, hidden, n_classes):
        self.fc7 = L.Linear(hidden, self.n_features)
        self.fc8 = L.Linear(self.n_features, n_classes)

    def convolutions(self, x, names=None):
        return self._cut('conv1_1', super().convolutions, x, names)

    def bottom(self, x):
        return self._cut('fc6', super().bottom, x)

    def feature_above(self, h):
        return self._cut('fc7', super().feature_above, h)

    def _cut(self, name, function, *args):
        """function(*args); without a graph where `name` and so all below it stay as they are."""
        if name in self.trained:
            return function(*args)
        with chainer.no_backprop_mode():
            return chainer.Variable(chainer.as_array(function(*args)), requires_grad=False)

    def trained_part(self):
        """The layers that learn, as a Chain of the same links.

        An optimizer set up on it never sees the frozen ones: no gradient is made
        for them and no weight decay reaches them.
        """
        return chainer.Chain(**{name: self[name] for name in self.trained})

    def along_clip(self, step=1):
        """Returns a function, to be called with the frames of one clip, batch by batch.

        It takes (n, S, S, 3) bytes and returns what feature_and_prediction takes for as many of the
        clip's frames as can be answered by now; None where that is not one. Networks that join
        frames (FusionNet.py) take the clip with the frames before and behind it that
        `offsets` tells of, and answer for every step-th frame.
        """
        return lambda x: x

    def layer_width(self, layer='fc7'):
        """How many numbers feature_and_prediction gives of a frame."""
        return layer_width(self.shape, layer)

    def feature_and_prediction(self, x, layer='fc7'):
        """(N, 3, S, S) float32, or frames (N, S, S, 3) as the bytes they are, -> (N, D) and
        softmax (N, n_classes), float32 arrays.

        The former is fc7's linear output, or with the layer 'pool5' its maps (C, h, w) in a
        row: what fc6 takes.
        """
        with chainer.no_backprop_mode(), chainer.using_config('train', False):
            maps = self.convolutions(x)
            feature = self.linear('fc7', F.relu(self.linear('fc6', maps)))
            scores = self.linear('fc8', F.relu(feature))
            saved = feature if layer == 'fc7' else F.reshape(maps, (len(maps), -1))
            return saved.array, F.softmax(scores).array


def layer_shape(shape, layer='fc7'):
    """(n_features,), or (C, h, w) of pool5.

    Args:
        shape (dict): of a VGGNet_1024, as its card tells; what is not told is the whole one's.
    """
    if layer == 'fc7':
        return (shape.get('n_features', 1024),)
    side = shape.get('input_size', 224) // 32
    return (shape.get('channels', CHANNELS)[-1], side, side)


def layer_width(shape, layer='fc7'):
    """How many numbers a layer gives of a frame."""
    return math.prod(layer_shape(shape, layer))


def from_vgg(vgg, n_classes, n_features=1024, network=VGGNet_1024, train_layers='2',
             **more):
    """Returns a network for actions that starts from a VGGNet's weights.

    Where each layer sees one moment the two share the arrays of what is frozen: fc6's have 400 MB.

    Args:
        vgg (VGGNet): gives the convolutions and fc6; for a layer that joins moments
            (FusionNet.py) they are `spread`. fc8 is new, and fc7 too.
        network: VGGNet_1024, or one of FusionNet.py.
        train_layers: key of TRAIN_LAYERS. With '1' fc7 also comes from the VGGNet, whose
            hidden units must be as many as n_features; with 'scratch' nothing does.
        more: further arguments of the network.
    """
    with chosen(the_same if train_layers == 'scratch' else all_but_he):
        model = network(**dict(vgg.shape, n_classes=n_classes), n_features=n_features, **more)
    model.mean, model.trained = vgg.mean, TRAIN_LAYERS[train_layers]
    names = vgg.conv_names + ['fc6']
    if train_layers == 'scratch':
        names = []
        model.expect_input(64)  # He's rule is for inputs near 1
    for name in names + ['fc7'] * (train_layers == '1'):
        n = model.joins(name)
        frozen, W = name not in model.trained, vgg[name].W.array
        if n == 1 and frozen:
            model[name].W.array = W
        else:
            model[name].W.array[...] = spread(W, n, even=frozen) if n > 1 else W
        model[name].b.array[...] = vgg[name].b.array
    return model


def spread(W, n, even=False):
    """An image network's weights (O, C, ...) over n moments: (O, n C, ...).

    The n shares of each output add up to 1, so that on what stands still it answers as before.
    They are drawn, around 1/n and about as far from it: all alike would be a saddle, where no
    gradient leads to the order of the moments. With `even` all are 1/n.
    """
    shares = numpy.full((n, len(W)), 1 / n)
    if not even and n > 1:
        uneven = numpy.random.standard_normal(shares.shape) / n
        shares += uneven - uneven.mean(axis=0)
    shares = shares.astype(W.dtype).reshape(n, len(W), *[1] * (W.ndim - 1))
    return numpy.concatenate([W * share for share in shares], axis=1)


def start_from_pictures(vgg):
    """Makes a VGGNet for pictures one to begin from with flow (Ng et al. 2015).

    Its first convolution gets the mean of its weights over the three channels, for each of
    them, as no channel is a colour now (Wang et al. 2016, "Temporal Segment Networks":
    cross-modality pre-training).
    """
    weights = vgg.conv1_1.W.array
    weights[...] = weights.mean(axis=1, keepdims=True)
    vgg.mean = FLOW_MEAN
