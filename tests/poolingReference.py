"""The scores of PoolingNet by loops in plain NumPy, complex numbers allowed."""
import itertools

import numpy


def largest(rows):
    """The maximum of each column, by the real part: complex numbers carry a derivative."""
    rows = numpy.array(rows)
    return rows[rows.real.argmax(axis=0), numpy.arange(rows.shape[1])]


def windows(x):
    """Runs of 10 frames, every 5; the clip goes on in reverse until the last one is whole."""
    n = 10
    while n < len(x):
        n += 5
    there_and_back = [*range(len(x)), *reversed(range(len(x)))]
    frames = list(itertools.islice(itertools.cycle(there_and_back), n))
    return [x[frames[start:start + 10]] for start in range(0, n - 9, 5)]


def convolved(p, window, maps):
    """All kernels at all places of one window, one product after the other."""
    W, b = p['time_conv/W'], p['time_conv/b']
    side, (channels, height, width) = W.shape[-1], maps
    window = window.reshape(10, channels, height, width)
    out = numpy.zeros((len(W), height, width), W.dtype) + b[:, None, None]
    for y, x, i, j in itertools.product(range(height), range(width), range(side), range(side)):
        at = y + i - side // 2, x + j - side // 2
        if 0 <= at[0] < height and 0 <= at[1] < width:
            out[:, y, x] += numpy.einsum('kct,tc->k', W[..., i, j], window[:, :, at[0], at[1]])
    return (out * (out.real > 0)).ravel()


def reference(p, shape, x):
    """The scores of one sequence of frames (n, D)."""
    def layer(k, h):
        h = p[f'fc/{k}/W'] @ h + p[f'fc/{k}/b']
        return h * (h.real > 0)

    def both(h):
        return layer(1, layer(0, h))
    x = (x - p['mean']) * p['scale']
    family = shape['family']
    if family == 'conv-pool':
        h = both(largest(x))
    elif family == 'late-pool':
        h = largest([both(frame) for frame in x])
    elif family == 'slow-pool':
        h = layer(1, largest([layer(0, largest(window)) for window in windows(x)]))
    elif family == 'local-pool':
        h = numpy.concatenate([both(largest(window)) for window in windows(x)])
    else:
        maps = shape['maps'] or (x.shape[1], 1, 1)
        h = both(largest([convolved(p, window, maps) for window in windows(x)]))
    return p['out/W'] @ h + p['out/b']
