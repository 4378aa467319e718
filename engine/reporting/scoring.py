"""One prediction for a video from those of its frames, and how right predictions are.

Frame, segment and video accuracy are three different things; every figure that a
stage prints or writes says which one it is.
"""
import numpy

from engine.errors import UserError

TOP_K = (1, 5, 10)
# Figures that a frequent class does not rule.
BALANCED = ('macro_f1', 'balanced_accuracy', 'kappa')
READOUTS = ('mean', 'linear', 'last', 'max')


def video_log_probability(frame_probabilities, readout='mean'):
    """Log probability of each class for one video.

    Args:
        frame_probabilities: (T, C) softmax of each frame or step.
        readout: how frames are joined: the mean of log softmax, the mean weighted
            (j+1)/T ('linear', as the original weights its steps), the last
            frame alone, or the maximum over time (Ng et al. 2015, section 3.2).

    Returns:
        (C,) float64, normalised: the exponentials sum to 1, so that losses of different
        read-outs can be compared. The video's prediction is its argmax.
    """
    probabilities = numpy.asarray(frame_probabilities, numpy.float64)
    # A probability that float32 rounds to 0 must not veto a class for ever.
    logs = numpy.log(numpy.maximum(probabilities, 1e-30))
    if readout == 'mean':
        joined = logs.mean(axis=0)
    elif readout == 'linear':
        joined = numpy.average(logs, axis=0, weights=numpy.arange(1, len(logs) + 1))
    elif readout == 'last':
        joined = logs[-1]
    elif readout == 'max':
        joined = logs.max(axis=0)
    else:
        raise UserError(f'readout {readout!r}: none of {", ".join(READOUTS)}')
    return joined - numpy.logaddexp.reduce(joined)


def score(log_probabilities, labels):
    """Accuracy of n predictions.

    Args:
        log_probabilities: (n, C) any scores that rise with the probability.
        labels: (n,) int.

    Returns:
        dict: n, top1, top5, top10 (shares of 1; None where k >= C says nothing), loss (mean of
        -log probability of the true class), and three that weigh rare classes as others:
        macro_f1 and balanced_accuracy, means over the classes that are shown, and kappa
        (Cohen 1960): 0 for guessing as often as classes come, 1 for all right, None where
        there is one class only.
    """
    scores = numpy.asarray(log_probabilities)
    return figures(*ranks(scores, numpy.asarray(labels)), scores.shape[1])


def score_videos(predictions, clips, readout='mean'):
    """Scores (clip name, (T, C) softmax) pairs as `score` does; `clips` give the labels."""
    labels = {clip.name: clip.label for clip in clips}
    pairs = [(video_log_probability(steps, readout), labels[name]) for name, steps in predictions]
    return score(*zip(*pairs))


def ranks(scores, labels):
    """All that figures need of n predictions: four arrays (n,).

    Returns:
        (where the true class comes, int from 0; its score; the class named; labels).
    """
    if not numpy.isfinite(scores).all():
        raise UserError('predictions hold a number that is not finite; make them again')
    rows = numpy.arange(len(labels))
    true = scores[rows, labels]
    # Ties count against us: a constant prediction must not look right.
    rank = (scores >= true[:, None]).sum(axis=1) - 1
    others = scores.astype(float)
    others[rows[rank > 0], labels[rank > 0]] = -numpy.inf
    return rank, true, others.argmax(axis=1), labels


def figures(rank, true, named, labels, n_classes):
    """The dict of `score` from what `ranks` gave."""
    result = {'n': len(rank)}
    for k in TOP_K:
        result[f'top{k}'] = float((rank < k).mean()) if k < n_classes or k == 1 else None
    return {**result, 'loss': float(-true.mean()), **class_means(labels, named)}


def class_means(labels, named):
    """The BALANCED figures of (n,) classes shown and (n,) classes named, as `score` tells."""
    from sklearn import metrics  # half a second, which who asks for no figures need not wait
    shown = numpy.unique(labels)
    means = {'labels': shown, 'average': 'macro', 'zero_division': 0}
    one = len(numpy.union1d(shown, named)) == 1
    return {'macro_f1': float(metrics.f1_score(labels, named, **means)),
            'balanced_accuracy': float(metrics.recall_score(labels, named, **means)),
            'kappa': None if one else float(metrics.cohen_kappa_score(labels, named))}


def in_words(figures):
    """'top-1 0.626  top-5 0.853  top-10 0.915 (n 3783)' without what is None."""
    parts = [f'top-{k} {figures[f"top{k}"]:.3f}' for k in TOP_K
             if figures.get(f'top{k}') is not None]
    return '  '.join(parts) + f'  (n {figures["n"]})'
