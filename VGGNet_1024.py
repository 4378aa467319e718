"""VGG-16 with a narrow top for actions: fc7 4096 -> 1024, fc8 1024 -> classes.

The convolutions and fc6 come from VGG.model and stay as they are; fc7 and fc8
are new. The feature of a frame is fc7's linear output, before ReLU and dropout.
"""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.links as L

from VGGNet import CHANNELS, VGGNet, load_vgg

TRAINED = ('fc7', 'fc8')
MADE_BY = 'python frameBasedTrain.py'


class VGGNet_1024(VGGNet):
    """VGG-16 whose top two layers are new.

    Args:
        n_features (int): units of fc7, the length of a frame's feature.
        The others as in VGGNet.
    """

    def __init__(self, channels=CHANNELS, hidden=4096, n_classes=101, input_size=224,
                 n_features=1024):
        self.n_features = n_features
        super().__init__(channels, hidden, n_classes, input_size)
        self.shape['n_features'] = n_features

    def add_top(self, hidden, n_classes):
        self.fc7 = L.Linear(hidden, self.n_features)
        self.fc8 = L.Linear(self.n_features, n_classes)

    def bottom(self, x):
        # No graph below fc7: nothing there is trained, nothing need be kept.
        with chainer.no_backprop_mode():
            return super().bottom(x).array

    def trained_part(self):
        """The layers that learn, as a Chain of the same links.

        An optimizer set up on it never sees the frozen ones: no gradient is made
        for them and no weight decay reaches them.
        """
        return chainer.Chain(**{name: self[name] for name in TRAINED})

    def feature_and_prediction(self, x):
        """(N, 3, S, S) float32 -> (N, n_features) and softmax (N, n_classes), float32 arrays.

        Call it in test mode, or dropout falls on the way to the feature.
        """
        with chainer.no_backprop_mode(), chainer.using_config('train', False):
            feature = self.feature(x)
            scores = self.fc8(chainer.functions.relu(feature))
            return feature.array, chainer.functions.softmax(scores).array


def from_vgg(vgg, n_classes, n_features=1024):
    """Returns a VGGNet_1024 with the convolutions and fc6 of a VGGNet, fc7 and fc8 new."""
    shape = dict(vgg.shape, n_classes=n_classes)
    model = VGGNet_1024(**shape, n_features=n_features)
    model.mean = vgg.mean
    for name in vgg.conv_names + ['fc6']:
        model[name].copyparams(vgg[name])
    return model


def load_vgg_1024(path, made_by=MADE_BY):
    """Returns (VGGNet_1024, card) from VGG_1024.model."""
    return load_vgg(path, made_by, VGGNet_1024)
