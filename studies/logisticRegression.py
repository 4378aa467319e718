"""scikit-learn's logistic regression on the mean feature of each clip: an independent baseline.

    python studies/logisticRegression.py --root s0

Needs   ROOT/train1024.hdf5 with statistics (python normalizeData.py), ROOT/test1024.hdf5
Writes  ROOT/logistic_testPredictions.hdf5, ROOT/logistic_validationPredictions.hdf5, a line in
        ROOT/results.jsonl

It sees no order, and no minibatch, rate or epoch stands between it and its optimum, so a network
that does worse has not learned all that these features say. Its penalty is that of the lowest loss
on the clips held out. What came out: docs/real-clips.md.
"""
import sys
from pathlib import Path

import numpy
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import helperFunctions as hf  # noqa: E402
from engine import hdf5, stage, variants  # noqa: E402
from engine.learning import statistics  # noqa: E402
from engine.learning.sequences import FeatureStore  # noqa: E402
from engine.learning.trainingset import clips_of  # noqa: E402
from engine.reporting import predictionfile, resultsfile, scoring  # noqa: E402
from engine.weights import cardchecks  # noqa: E402

PENALTIES = 10.0 ** numpy.arange(-5, 3)  # C: one over the weight of half the squared norm


def clip_means(f, kind, lists, mean, std):
    """(clips, (clips, D) float64 mean of each clip's normalised features, labels (clips,))."""
    store = FeatureStore(f, clips_of(kind, f, lists))
    rows = [store.rows(i, numpy.arange(n)).mean(axis=0, dtype=float)
            for i, n in enumerate(store.lengths)]
    return store.clips, (numpy.array(rows).reshape(-1, len(mean)) - mean) / std, store.labels


def main():
    parser = stage.new_parser(__doc__)
    stage.add_variant(parser, 'stream', 'fusion', 'fold')
    args = stage.parse(parser)
    names = variants.names_of(args)
    lists = hf.read_lists(args.root, args.split)
    with hdf5.open_hdf5(args.root / names.train, 'python save_hdf5.py') as f:
        mean, std = statistics.read(f, 'python normalizeData.py')[:2]
        packed = cardchecks.packed_in(hdf5.attributes(f))
        _, x, y = clip_means(f, 'training', lists, mean, std)
        held_out, xv, yv = clip_means(f, 'validation', lists, mean, std)
    with hdf5.open_hdf5(args.root / names.test, 'python save_hdf5.py') as f:
        tested, xt, yt = clip_means(f, 'test', lists, mean, std)
    fits = [LogisticRegression(C=C, max_iter=5000).fit(x, y) for C in PENALTIES]
    losses = [-numpy.mean(fit.predict_log_proba(xv)[numpy.arange(len(yv)),
                                                    numpy.searchsorted(fit.classes_, yv)])
              for fit in fits]
    best = fits[int(numpy.argmin(losses))]

    figures = {}
    for kind, clips, rows, labels in (('validation', held_out, xv, yv), ('test', tested, xt, yt)):
        softmax = numpy.zeros((len(rows), len(lists.classes)))
        softmax[:, best.classes_] = best.predict_proba(rows)
        out = args.root / f'{names.of("logistic")}_{kind}Predictions.hdf5'
        predictionfile.write_predictions(
            out, ((clip.name, row[None]) for clip, row in zip(clips, softmax)), lists.classes,
            'logistic regression', args.split)
        figures[kind] = scoring.score(numpy.log(numpy.maximum(softmax, 1e-30)), labels)
    validation = figures['validation']
    resultsfile.append_result(
        args.root, 'logistic regression', args.split, 'video', args.seed, {'C': best.C},
        predictions=out.name, **({'features': packed} if packed else {}),
        **resultsfile.fold_of(names), validation_loss=validation['loss'],
        validation_accuracy=validation['top1'], **figures['test'])
    print(f'logistic regression, C {best.C:g}, by video:  {scoring.in_words(figures["test"])} '
          f'(validation: top-1 {validation["top1"]:.3f})')


if __name__ == '__main__':
    stage.run(main)
