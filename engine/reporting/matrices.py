"""Confusion matrices: rows the true class, columns what a method said.

SciPy and scikit-learn, a second or two, are imported where something is counted.
"""
import numpy


def count(method, clips, n_classes):
    """Counts clips by (true class, said class): (n_classes, n_classes) int64."""
    from sklearn.metrics import confusion_matrix
    return confusion_matrix([clip.label for clip in clips],
                            [method.said[clip.name] for clip in clips],
                            labels=range(n_classes))


def class_accuracy(matrix):
    """Share of right clips a class, float64 in 0..1; nan for a class without clips."""
    n = matrix.sum(axis=1)
    return numpy.where(n > 0, matrix.diagonal() / numpy.maximum(n, 1), numpy.nan)


def most_confused(matrix):
    """The most frequent errors: list of (true label, said label, clips), most first.

    Equal counts: the pair that is the larger share of its class comes first.
    """
    n = matrix.sum(axis=1)
    pairs = [(int(i), int(j), int(matrix[i, j])) for i, j in zip(*matrix.nonzero()) if i != j]
    pairs.sort(key=lambda pair: (-pair[2], -pair[2] / n[pair[0]], pair[:2]))
    return pairs


def gains(matrix_a, matrix_b, top=10):
    """Labels that gained most (best first) and that lost most (worst first) from A to B.

    Equal changes: the class with more clips comes first, as it moved by more of them.
    """
    change = class_accuracy(matrix_b) - class_accuracy(matrix_a)
    n = matrix_a.sum(axis=1)

    def ranked(sign):
        labels = [int(i) for i in numpy.flatnonzero(sign * numpy.nan_to_num(change) > 0)]
        labels.sort(key=lambda i: (round(-sign * change[i], 9), -n[i], i))
        return labels[:top]
    return ranked(+1), ranked(-1)


def similar_order(matrix):
    """Orders labels so that classes taken for each other stand side by side."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform
    share = matrix / numpy.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distance = 1 - numpy.minimum(share + share.T, 1)
    numpy.fill_diagonal(distance, 0)
    distance = squareform(distance, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(distance, 'average'), distance))


def labels_to_draw(matrix, order='list'):
    """Labels of the classes that are shown or said, in the order asked for."""
    met = numpy.flatnonzero(matrix.sum(axis=1) + matrix.sum(axis=0))
    if order == 'similar' and len(met) > 2:
        met = met[similar_order(matrix[numpy.ix_(met, met)])]
    return met
