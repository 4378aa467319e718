"""Stacks of random convolutions, and what they compute, in float64."""
import numpy


def make_layers(widths, seed=0, channels=3):
    """Layers with the spread of a trained network; a width given as text pools after it."""
    random = numpy.random.default_rng(seed)
    layers = []
    for width in widths:
        outs = int(width)
        w = random.normal(0, (2 / (9 * channels)) ** 0.5, (outs, channels, 3, 3))
        b = random.normal(0, 0.1, outs)
        layers.append((w.astype('f'), b.astype('f'), isinstance(width, str)))
        channels = outs
    return layers


def float64_stack(x, layers, relu=True):
    """x (N, H, W, C) through nine shifted products a layer, in float64."""
    h = x.astype(numpy.float64)
    for w, b, pool in layers:
        around = numpy.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = h.shape[1:3]
        h = b.astype(numpy.float64) + sum(
            around[:, i:i + height, j:j + width] @ w[:, :, i, j].T.astype(numpy.float64)
            for i in range(3) for j in range(3))
        if relu:
            h = numpy.maximum(h, 0)
        if pool:
            h = numpy.pad(h, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)),
                          constant_values=-numpy.inf)
            h = h.reshape(
                len(h), -(-height // 2), 2, -(-width // 2), 2, len(w)).max((2, 4))
    return h.transpose(0, 3, 1, 2)


def error(y, expected):
    assert y.shape == expected.shape and y.dtype == numpy.float32
    return abs(y - expected).max() / abs(expected).max()
