"""What the arrays of a new network begin with: drawn without a second copy of the largest, which
in float64 has 800 MB, or left as they are where a file's come in their place.
"""
import contextlib

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy

PIECE = 1 << 18  # numbers


class HeNormal(chainer.initializers.HeNormal):
    """Chainer's own, the same numbers, drawn piece by piece. He et al. 2015.

    With `kept` False they are only drawn: what is drawn after them stays the same.
    """

    kept = True

    def __call__(self, array):
        fan_in, _ = chainer.initializer.get_fans(array.shape)
        deviation = self.scale * numpy.sqrt(2 / fan_in)
        flat = array.reshape(-1)
        for at in range(0, flat.size, PIECE):
            part = flat[at:at + PIECE]
            drawn = numpy.random.normal(0.0, deviation, part.shape)
            if self.kept:
                part[...] = drawn


class _Nothing(chainer.initializer.Initializer):
    """Leaves an array as it is: its memory is not even taken."""

    def __call__(self, array):
        pass


@contextlib.contextmanager
def chosen(choose):
    """Networks made in the block begin with what choose(initializer, shape) gives in place of each
    of Chainer's initializers. The NaN that gradients begin with takes no memory, not to be written
    to: the first step makes its own.
    """
    make = chainer.initializers.generate_array

    def generate_array(initializer, shape, *args, **kwargs):
        initial = choose(initializer, shape)
        if isinstance(initializer, chainer.initializers.NaN):
            return numpy.broadcast_to(numpy.array(numpy.nan, chainer.get_dtype(initializer.dtype)),
                                      shape)
        return make(initial, shape, *args, **kwargs)
    chainer.initializers.generate_array = generate_array
    try:
        yield
    finally:
        chainer.initializers.generate_array = make


def nothing(initializer, shape):
    """For `chosen`: a file's numbers will come."""
    return _Nothing(getattr(initializer, 'dtype', None))


def the_same(initializer, shape):
    """For `chosen`: as ever."""
    return initializer


def all_but_he(initializer, shape):
    """For `chosen`: He's numbers are drawn and not kept, since others will replace them."""
    if not isinstance(initializer, HeNormal):
        return initializer
    drawn = HeNormal(initializer.scale, initializer.dtype)
    drawn.kept = False
    return drawn
