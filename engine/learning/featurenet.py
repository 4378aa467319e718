"""The base of the networks on frame features (RNNNet.py, PoolingNet.py)."""
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

from engine.fast import kernelnames


class FeatureNet(chainer.Chain):
    """Normalises its input by statistics that travel with the weights.

    Args:
        n_in (int): length D of a feature.

    `once` tells whether it scores a sequence once, or at every step.
    """
    once = False

    def __init__(self, n_in):
        super().__init__()
        self.add_persistent('mean', numpy.zeros(n_in, numpy.float32))
        self.add_persistent('scale', numpy.ones(n_in, numpy.float32))

    def set_statistics(self, mean, std):
        """Takes the mean and deviation, (D,), that features are normalised by."""
        self.mean[...] = self.xp.asarray(mean)
        self.scale[...] = self.xp.asarray(1 / std)

    def normalise(self, xs):
        """Raw features (..., D) -> such of mean 0 and deviation 1."""
        return (xs - self.mean) * self.scale

    def kernel(self):
        """What computes it where it is now, in words."""
        return kernelnames.in_words(self.xp)

    def reset_state(self):
        """Begins a new sequence."""
