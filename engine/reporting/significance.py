"""How far chance reaches: bootstrap intervals and McNemar's test."""
import numpy


def bootstrap_interval(right, units, seed=0, draws=2000, level=0.95):
    """Percentile bootstrap interval of the share of right clips.

    Args:
        right: (n,) bool.
        units: n hashable values; clips of one unit are drawn together.

    Returns:
        (low, high), shares of 1.
    """
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    index = numpy.array([numbers[unit] for unit in units])
    sizes = numpy.bincount(index)
    hits = numpy.bincount(index, weights=numpy.asarray(right, float))
    random = numpy.random.default_rng(seed)
    shares = []
    for _ in range(draws):  # one draw at a time: 2000 x 3783 indices need not be held
        drawn = random.integers(len(sizes), size=len(sizes))
        shares.append(hits[drawn].sum() / sizes[drawn].sum())
    tail = 50 * (1 - level)
    low, high = numpy.percentile(shares, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar(only_a, only_b):
    """Two-sided exact p: the chance of a split at least as uneven if both were equally good."""
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest  # a second, which who compares nothing need not wait
    return float(binomtest(only_b, only_a + only_b, 0.5).pvalue)
