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
from engine.errors import UserError  # noqa: E402

MADE_BY = 'python save_hdf5.py'
PENALTIES = 10.0 ** numpy.arange(-5, 5)  # C: one over the weight of half the squared norm


def clip_means(path, kind, args, lists, mean=0, std=1):
    """(clips, (clips, D) mean of each clip's normalised features, labels (clips,), attributes)."""
    with hdf5.open_hdf5(path, MADE_BY) as f:
        said = hdf5.attributes(f)
        cardchecks.check_classes(path, said, lists.classes)
        cardchecks.check_split(path, said, args.split, variants.names_of(args))
        wanted = clips_of(kind, f, lists)
        store = FeatureStore(f, wanted)
        if not len(store):
            raise UserError(f'{path}: holds no {kind} clip; made by: {MADE_BY}')
        if len(store) < len(wanted):
            print(f'{len(wanted) - len(store)} {kind} clips have no features and are not counted')
        rows = [store.rows(i, numpy.arange(n)).mean(axis=0, dtype=float)
                for i, n in enumerate(store.lengths)]
    return store.clips, (numpy.array(rows) - mean) / std, store.labels, said


def log_probabilities(fit, rows, n_classes):
    """(clips, n_classes); a class that had nothing to learn from has hardly any."""
    softmax = numpy.zeros((len(rows), n_classes))
    softmax[:, fit.classes_] = fit.predict_proba(rows)
    return numpy.log(numpy.maximum(softmax, 1e-30))


def main():
    parser = stage.new_parser(__doc__)
    stage.add_variant(parser, 'stream', 'fusion', 'fold')
    args = stage.parse(parser)
    names, lists = variants.names_of(args), hf.read_lists(args.root, args.split)
    with hdf5.open_hdf5(args.root / names.train, MADE_BY) as f:
        mean, std = statistics.read(f, 'python normalizeData.py')[:2]

    def rows_of(kind):
        return clip_means(args.root / (names.test if kind == 'test' else names.train), kind, args,
                          lists, mean, std)
    _, x, y, said = rows_of('training')
    held_out, chosen_by, wanted, _ = rows_of('validation')
    fits = [LogisticRegression(C=C, max_iter=5000).fit(x, y) for C in PENALTIES]
    fit = min(fits, key=lambda fit: scoring.score(
        log_probabilities(fit, chosen_by, len(lists.classes)), wanted)['loss'])

    figures, method = {}, names.method('logistic regression')
    for kind, (clips, rows, labels, _) in (('validation', (held_out, chosen_by, wanted, None)),
                                           ('test', rows_of('test'))):
        logs = log_probabilities(fit, rows, len(lists.classes))
        out = args.root / f'{names.of("logistic")}_{kind}Predictions.hdf5'
        predictionfile.write_predictions(
            out, ((clip.name, numpy.exp(row)[None]) for clip, row in zip(clips, logs)),
            lists.classes, method, args.split)
        figures[kind] = scoring.score(logs, labels)
    resultsfile.append_result(
        args.root, method, args.split, 'video', args.seed, {}, predictions=out.name, C=fit.C,
        features=cardchecks.packed_in(said), made_with=cardchecks.made_with_in('', said),
        **resultsfile.fold_of(names),
        validation_loss=figures['validation']['loss'],
        validation_accuracy=figures['validation']['top1'], **figures['test'])
    print(f'{method}, C {fit.C:g}, by video:  {scoring.in_words(figures["test"])} '
          f'(validation: top-1 {figures["validation"]["top1"]:.3f})')


if __name__ == '__main__':
    stage.run(main)
