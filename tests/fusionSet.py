"""Narrow networks that join frames, made-up clips, and their windows."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

from FusionNet import NETWORKS
from VGGNet import VGGNet
from VGGNet_1024 import from_vgg
from engine.video.preprocessing import preprocess

NARROW = dict(channels=(4, 6, 8, 8, 8), hidden=8, input_size=32)
FUSED = ('early', 'late', 'slow')
# The frames of a window (Karpathy et al. 2014, section 3.1), around frame 0.
SEEN = {'single': [0], 'early': list(range(-4, 6)), 'late': [-7, 8], 'slow': list(range(-4, 6))}


def make_vgg():
    numpy.random.seed(0)
    vgg = VGGNet(n_classes=7, **NARROW)
    for name in vgg.conv_names + ['fc6', 'fc7']:
        vgg[name].b.array[...] = 20  # so that few units are dead
    return vgg


def network(vgg, fusion, train_layers='2', learnt=True):
    """With `learnt` layers that join moments have other weights for each of them."""
    model = from_vgg(vgg, 3, 5, NETWORKS[fusion], train_layers)
    random = numpy.random.RandomState(1)
    for name in model.taps if learnt else ():
        W = model[name].W.array
        W += (W.std() * random.standard_normal(W.shape)).astype(W.dtype)
    return model


def clip(n, seed=2):
    """(n, 32, 32, 3) uint8 noise."""
    return numpy.random.RandomState(seed).randint(256, size=(n, 32, 32, 3)).astype(numpy.uint8)


def windows(model, frames, centres):
    return numpy.stack([preprocess(frames[[t + o for o in model.offsets]]) for t in centres])


def test_mode(function, *args):
    with chainer.no_backprop_mode(), chainer.using_config('train', False):
        return function(*args).array
test_mode.__test__ = False
