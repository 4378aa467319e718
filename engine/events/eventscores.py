"""How good events are: by frame, by overlap, by order, and at their borders.

F1 at an overlap and the edit score are those of Lea et al. 2017 (arXiv:1611.05267), as Farha and
Gall 2019 (arXiv:1903.01945) use them; what is between events is no class of its own in them.
"""
from collections import Counter
from typing import NamedTuple

import numpy

OVERLAPS = (0.1, 0.25, 0.5)
NOTHING = -1  # label of a frame that shows none of the classes


class Pairs(NamedTuple):
    """What belongs together of the events of a film.

    `best` (P,) int is the true event of the same class that overlaps each predicted one most (-1:
    none), `overlap` (P,) float64 their intersection over union.
    """
    best: numpy.ndarray
    overlap: numpy.ndarray

    def found(self, least):
        """{true event: predicted event} of those found at an overlap; of several predicted events
        for one true one the best counts, the others are too many."""
        pairs = {}
        for predicted in numpy.argsort(-self.overlap, kind='stable'):
            if self.best[predicted] >= 0 and self.overlap[predicted] >= least:
                pairs.setdefault(int(self.best[predicted]), int(predicted))
        return pairs


def pair(truth, predicted):
    """The Pairs of two lists of (label, start, stop)."""
    labels, starts, stops = numpy.array(truth, float).reshape(-1, 3).T
    best = numpy.full(len(predicted), -1)
    overlap = numpy.zeros(len(predicted))
    for i, (label, start, stop) in enumerate(predicted):
        both = numpy.minimum(stop, stops) - numpy.maximum(start, starts)
        whole = numpy.maximum(stop, stops) - numpy.minimum(start, starts)
        share = both / whole * ((labels == label) & (both > 0))
        if share.any():
            best[i], overlap[i] = share.argmax(), share.max()
    return Pairs(best, overlap)


def f1(found, true, predicted):
    """F1 of counts; NaN where there is nothing to find and nothing was found."""
    return 2 * found / (true + predicted) if true + predicted else float('nan')


def edit_score(truth, predicted):
    """1 less Levenshtein's distance of two sequences of labels, by the length of the longer."""
    if not truth and not predicted:
        return 1.0
    row = list(range(len(predicted) + 1))
    for i, true in enumerate(truth, 1):
        above, row[0] = row[0], i
        for j, label in enumerate(predicted, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (true != label))
    return 1 - row[-1] / max(len(truth), len(predicted))


def frames_of(events, count, rate):
    """What each frame shows: (count,) int labels.

    Args:
        events: list of (label, start, stop); where two overlap the one that began last counts.
        rate (float): frames a second; a frame shows what happens at its middle.
    """
    labels = numpy.full(count, NOTHING)
    for label, start, stop in sorted(events, key=lambda event: event[1]):
        labels[slice(*(max(0, int(numpy.ceil(moment * rate - 0.5))) for moment in
                       (start, stop)))] = label
    return labels


class Scores:
    """Sums over films, and what follows from them.

    Args:
        n_classes (int): labels are 0 to n_classes - 1.
        rate (float): frames a second by which time is counted.
    """

    def __init__(self, n_classes, rate=25.0):
        self.n_classes, self.rate = n_classes, rate
        # [what is true, what was said] of frames; the last of each is NOTHING
        self.frames = numpy.zeros((n_classes + 1, n_classes + 1), int)
        self.true, self.predicted = Counter(), Counter()
        self.found = {least: Counter() for least in OVERLAPS}
        self.edits, self.starts, self.stops = [], {}, {}

    def add(self, truth, predicted, seconds):
        """Takes in a film: two lists of (label, start, stop) in order, and its length."""
        count = max(1, round(seconds * self.rate))
        numpy.add.at(self.frames, (frames_of(truth, count, self.rate),
                                   frames_of(predicted, count, self.rate)), 1)
        self.true.update(label for label, _, _ in truth)
        self.predicted.update(label for label, _, _ in predicted)
        self.edits.append(edit_score([event[0] for event in truth],
                                     [event[0] for event in predicted]))
        pairs = pair(truth, predicted)
        for least, counter in self.found.items():
            counter.update(truth[i][0] for i in pairs.found(least))
        for i, j in pairs.found(OVERLAPS[0]).items():
            for errors, side in ((self.starts, 1), (self.stops, 2)):
                errors.setdefault(truth[i][0], []).append(abs(predicted[j][side] - truth[i][side]))

    def accuracy(self):
        """Share of all frames that are right, nothing among them."""
        return self.frames.trace() / self.frames.sum()

    def recall(self, label):
        """Share of a class's frames that are right; NaN where there is none."""
        return _ratio(self.frames[label, label], self.frames[label].sum())

    def mean_recall(self):
        """The mean of recall over the classes that are there, nothing left out."""
        return _mean([self.recall(label) for label in range(self.n_classes)])

    def f1(self, least, label=None):
        """F1 at an overlap, of a class or of all events."""
        if label is None:
            return f1(*(counter.total() for counter in
                        (self.found[least], self.true, self.predicted)))
        return f1(self.found[least][label], self.true[label], self.predicted[label])

    def edit(self):
        """The mean of the films' edit scores."""
        return _mean(self.edits)

    def border_error(self, side, label=None):
        """Mean absolute error in seconds of `starts` or `stops`, over the events found at the
        least overlap."""
        errors = getattr(self, side)
        return _mean(errors.get(label, []) if label is not None else
                     [error for one in errors.values() for error in one])


def _ratio(part, whole):
    return part / whole if whole else float('nan')


def _mean(values):
    values = [value for value in values if not numpy.isnan(value)]
    return float(numpy.mean(values)) if values else float('nan')
