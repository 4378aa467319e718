"""A video of any length, seen through a window that moves along it, in bounded memory."""
import numpy


def slide(batches, window, stride):
    """Cuts what comes in batches into windows: one wherever it is full, one at the very end.

    Args:
        batches: iterable of (features (n, D), softmax (n, C)), the frames in order.
        window (int): frames of a window.
        stride (int): frames from one window to the next.

    Yields:
        (start, end, features (T, D), softmax (T, C)) of frames start to end - 1. T is `window`;
        of a shorter video, all there is.
    """
    features = softmax = None
    seen, end, last = 0, window, None
    for pair in batches:
        features, softmax = (new if old is None else numpy.concatenate([old[-window:], new])
                             for old, new in zip((features, softmax), pair))
        seen += len(pair[0])
        while end <= seen:
            here = slice(len(features) - seen + end - window, len(features) - seen + end)
            yield end - window, end, features[here], softmax[here]
            last, end = end, end + stride
    if last != seen:
        yield max(seen - window, 0), seen, features[-window:], softmax[-window:]


class OneClip:
    """Features (T, D) of one clip in memory, in the place of a FeatureStore."""

    def __init__(self, clip, features):
        self.clips, self.lengths = [clip], [len(features)]
        self.features, self.n_features = features, features.shape[1]

    def rows(self, _, wanted):
        return self.features[wanted]


class Pictures:
    """Some frames, evenly spaced, of a video whose length is not known before.

    Args:
        least (int): twice so many are kept at most, and from `least` on never fewer.
    """

    def __init__(self, least):
        self.least, self.every, self.seen, self.kept = least, 1, 0, []

    def add(self, frames):
        """Takes in the next (n, ...) frames."""
        first = -self.seen % self.every
        self.kept += [(self.seen + i, frames[i].copy())
                      for i in range(first, len(frames), self.every)]
        self.seen += len(frames)
        while len(self.kept) > 2 * self.least:
            self.kept, self.every = self.kept[::2], 2 * self.every


def moment(times, index):
    """Seconds at which frame `index` begins; of the one behind the last, when that ends."""
    if index < len(times):
        return times[index]
    # 0.04: a single frame has no rate
    return times[-1] + ((times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.04)


def zones(spans, times):
    """Which window speaks for which time: each for what it saw, and where two saw the same, one
    hands over to the next midway between their middles.

    Args:
        spans: [(start, end)] of the windows, frames.
        times: seconds of every frame.

    Returns:
        List of (from, to, window or None), seconds, from the first frame to the end; None where
        no window looked.
    """
    seen = [(moment(times, start), moment(times, end)) for start, end in spans]
    middles = [(begin + end) / 2 for begin, end in seen]
    found = []
    for number, (begin, end) in enumerate(seen):
        if number:
            begin = max(begin, (middles[number - 1] + middles[number]) / 2)
        if number + 1 < len(seen):
            end = min(end, (middles[number] + middles[number + 1]) / 2)
        if found and begin > found[-1][1]:
            found.append((found[-1][1], begin, None))
        found.append((begin, end, number))
    return found
