"""Which frames mattered: what a network says of a clip when a stretch of them is left out."""
from typing import NamedTuple

import numpy

from engine.learning.inference import predict


class Stretch(NamedTuple):
    """Frames start to end (the last not counted), and the softmax of the clip without them."""
    start: int
    end: int
    without: numpy.ndarray  # (T, C) float32


class _Rows:
    """One clip's features, as `predict` asks a FeatureStore for them."""

    def __init__(self, clip, rows):
        self.clips, self.lengths, self.n_features = [clip], [len(rows)], rows.shape[1]
        self._rows = rows

    def rows(self, index, wanted):
        return self._rows[wanted]


def leave_out(model, device, clip, rows, parts=12, **how):
    """Predicts a clip whole and without each of `parts` stretches of equal length.

    Args:
        model (FeatureNet): on `device`.
        clip (Clip): whose name a random segment depends on.
        rows: (n, D) float32 features of all its frames; of one frame nothing can be left out.
        how: technique, steps, reverse_too, seed as for `predict`.

    Returns:
        ((T, C) softmax of the whole, [Stretch]).
    """
    def softmax(rows):
        (_, found), = predict(model, _Rows(clip, rows), device, 1, **how)
        return found
    n = len(rows)
    edges = numpy.linspace(0, n, min(parts, n) + 1).round().astype(int) if n > 1 else []
    return softmax(rows), [
        Stretch(int(start), int(end), softmax(numpy.concatenate([rows[:start], rows[end:]])))
        for start, end in zip(edges, edges[1:])]
