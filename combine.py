"""Combines prediction files of any methods: their average in log probability.

    python combine.py --root ROOT testPredictions1024.hdf5 RNN_testPredictions.hdf5
    python combine.py --root ROOT FILE FILE FILE --weights 1 2 0.5
    python combine.py --root ROOT FILE FILE --choose        # weights by validation clips
    python combine.py --root ROOT FILE FILE --choose --folds 5      # by those of five folds
    python combine.py --root ROOT FILE FILE --calibrate     # each as sure as it is right, first
    python confusion.py --root ROOT RNN_testPredictions.hdf5 combined_testPredictions.hdf5

Each file makes one prediction a clip by its own read-out, as the stage that wrote it; a FILE
is looked for as given, then in ROOT. The file of validation clips beside NAME_testPredictions
.hdf5 is NAME_validationPredictions.hdf5, beside testPredictions1024.hdf5 it is
validationPredictions1024.hdf5. --choose tries all weights on a grid of tenths (fifths for more
than six files) and takes those with the most validation clips right, and among equals those
with the lowest loss. With --folds N these are the validation clips of the same runs with --fold
1/N to N/N, together all clips of the training list. The test clips have no say in it.

A file that is surer than it is right outvotes the others. --calibrate divides the log
probabilities of each by its own temperature, found on its validation clips, before they are
weighed. What comes out gets a temperature, too, found and kept as those of the networks
(docs/accuracy.md).

Writes  ROOT/combined_testPredictions.hdf5, ROOT/combined_validationPredictions.hdf5 (--name),
        a line in ROOT/results.jsonl, with the seeds and settings of the runs combined, over
        whose seeds results.py --mean averages
"""
import itertools
import os
import shlex

import engine  # noqa: F401  (before NumPy)
import numpy

import helperFunctions as hf
from engine import arguments, files, locks, stage, variants
from engine.reporting import calibration, means, predictionfile, resultsfile, scoring
from engine.errors import UserError


def get_parser():
    parser = stage.new_parser(__doc__)
    parser.add_argument('files', nargs='+', metavar='FILE',
                        help='prediction files of test clips, two or more')
    group = parser.add_argument_group('weights (default: all files count alike)')
    group.add_argument('--weights', type=arguments.not_negative, nargs='+', metavar='W',
                       help='how much each file counts; only their ratios matter')
    group.add_argument('--choose', action='store_true',
                       help='the weights that are best on the validation clips')
    group.add_argument('--folds', type=arguments.whole(2), metavar='N',
                       help='with --choose: on those of all folds 1/N to N/N')
    group.add_argument('--calibrate', action='store_true',
                       help='first make each file as sure as it is right on the validation clips')
    parser.add_argument('--name', default='combined',
                        help='names the files that are written (default: combined)')
    return parser


def validation_file(path):
    """The file of validation predictions that belongs to one of test predictions."""
    if 'testPredictions' not in path.name:
        raise UserError(f'{path}: not named ...testPredictions..., so its validation file cannot '
                        'be found; rename it, or leave out --choose and --calibrate')
    return path.with_name(path.name.replace('testPredictions', 'validationPredictions'))


def read(paths, clips, lists, split, kind, needed='', maker_of=variants.maker_of):
    """Reads the clips that all files hold.

    Args:
        kind: 'test' or 'validation', for what is said of the files.
        needed: the flag that these clips decide for, if any.
        maker_of: function of a file and the split, that gives the command which makes it.

    Returns:
        (clips, (files, n, C) log probabilities, methods); None where there is no such validation
        clip, nor one needed.
    """
    tables, methods = [], []
    for path in paths:
        found, attrs = predictionfile.read_predictions(path, clips, lists.classes,
                                                       maker_of(path, split))
        if attrs.get('split', split) != split:
            raise UserError(f'{path}: made for split {attrs["split"]}; add --split '
                            f'{attrs["split"]}')
        tables.append({name: scoring.video_log_probability(steps, attrs['readout'])
                       for name, steps in found.items()})
        methods.append(attrs.get('method', path.stem))
    shared = [clip for clip in clips if all(clip.name in table for table in tables)]
    if needed:
        check_shared([clip for clip in clips if any(clip.name in table for table in tables)],
                     shared, needed)
    elif not shared:
        text = (f'{", ".join(map(str, paths))}: no {kind} clip of split {split} is in all of '
                'them; ')
        if kind == 'validation':
            print(f'{text}nothing is validated')
            return None
        raise UserError(f'{text}make them from the same lists')
    for path, table in zip(paths, tables):
        lacking = sorted(set().union(*tables) - set(table))
        if lacking:
            print(f'{path}: this {kind} file lacks {len(lacking)} clips that others hold, '
                  f'{lacking[0]} first; they are left out')
    logs = numpy.array([[table[clip.name] for clip in shared] for table in tables])
    if not numpy.isfinite(logs).all():
        bad = paths[int(numpy.argwhere(~numpy.isfinite(logs))[0][0])]
        raise UserError(f'{bad}: holds a number that is not finite; make it again: '
                        f'{maker_of(bad, split)}')
    return shared, logs, methods


def check_shared(held_out, shared, needed):
    """Says how many of the clips that one of the files held out are `shared` by all.

    Raises:
        UserError: they are none, or none of a class.
    """
    few = f'{needed}: all files held out {len(shared)} of {len(held_out)} clips'
    missing = sorted({clip.class_name for clip in held_out} - {clip.class_name for clip in shared})
    if missing or not shared:
        raise UserError(f'{few}, none of {missing[0] if missing else "the training list"}; train '
                        'the frame networks with one --seed, which draws these clips, or go '
                        f'without {needed}')
    if len(shared) < len(held_out):
        print(f'{few}; these decide, the others are left out')


def read_folds(paths, clips, lists, split, n, needed):
    """The same of the validation files of all folds: each clip was held out in one of them."""
    lines, folds = told_of(paths, split), [f'{k}/{n}' for k in range(1, n + 1)]
    # With the flags of the run that is not of a fold, where its line tells them.
    commands = {file_of_fold(path, fold): f'{line["command"]} --fold {fold}'
                for path, line in zip(paths, lines) for fold in folds
                if str(line.get('command')).startswith('python rnn.py ')}
    found = [read([file_of_fold(path, fold) for path in paths], clips, lists, split, 'validation',
                  needed, lambda path, split: commands.get(path, variants.maker_of(path, split)))
             for fold in folds]
    names = [clip.name for clips_of_fold, *_ in found for clip in clips_of_fold]
    if len(set(names)) < len(names):
        raise UserError(f'--folds {n}: some clips are in two folds, so the lists have changed '
                        'since they were made; train the folds again')
    print(f'weights by {len(names)} of {len(clips)} clips of the training list, of {n} folds')
    for path, line in zip(paths, lines):
        say_if_other(path, line, *told_of([path.with_name(file_of_fold(path, fold).name.replace(
            'validationPredictions', 'testPredictions')) for fold in folds], split))
    return (sum((clips_of_fold for clips_of_fold, *_ in found), []),
            numpy.concatenate([logs for _, logs, _ in found], axis=1), found[0][2])


def say_if_other(path, whole, *of_folds):
    """Names what the folds of a run were made with that it was not, of the lines that tell of
    them ({} where none does)."""
    told = [line for line in of_folds if line] if whole else []
    for words, made in (('trained with other settings', means.recipe),
                        ('made from other features or lists', means.making)):
        other = [line for line in told if made(line) != made(whole)]
        if other:
            differ = means.differences(*map(made, (whole, other[0])))
            print(f'{path}: {words} than {len(other)} of its folds, {other[0]["predictions"]} '
                  f'first ({"; ".join(differ)}); the weights are those that suit these')
    if untold := len(of_folds) - len(told):
        print(f'{path}: no {resultsfile.RESULTS} tells how '
              + (f'{untold} of its folds were' if whole else 'it was')
              + ' made, so that nothing says whether they go together')


def file_of_fold(path, fold):
    """The file of validation predictions of a fold, of the run that a file tests."""
    path = validation_file(path)
    run = path.name.removesuffix(variants.VALIDATION_SUFFIX)
    if run != path.name:
        return path.with_name(variants.name_in_fold(run, fold) + variants.VALIDATION_SUFFIX)
    return path.with_name(variants.name_in_fold(path.stem, fold) + path.suffix)


def combine(logs, weights):
    """Weighted average of log probabilities, normalised.

    Args:
        logs: (files, n, C); weights: (files,), of which only the ratios matter.

    Returns:
        (n, C) float64 log probabilities.
    """
    weights = numpy.asarray(weights, float)
    average = numpy.tensordot(weights / weights.sum(), logs, axes=1)
    average -= average.max(axis=1, keepdims=True)
    return average - numpy.log(numpy.exp(average).sum(axis=1, keepdims=True))


def tempered(logs, temperatures):
    """(files, n, C) log probabilities, each file's at its temperature."""
    return numpy.array([calibration.temper(*pair) for pair in zip(logs, temperatures)])


def grid(n, parts):
    """All ways to deal `parts` equal parts to n files: yields tuples of n whole numbers."""
    for bars in itertools.combinations(range(parts + n - 1), n - 1):
        edges = (-1, *bars, parts + n - 1)
        yield tuple(right - left - 1 for left, right in zip(edges, edges[1:]))


def choose(logs, labels):
    """Returns the weights, a tuple, that are best on validation clips (see above)."""
    n, labels = len(logs), numpy.asarray(labels)
    parts = 10 if n <= 6 else 5

    def badness(weights):
        rank, true, *_ = scoring.ranks(combine(logs, weights), labels)
        return (rank > 0).mean(), -true.mean()
    best = min(grid(n, parts), key=badness)
    return tuple(part / parts for part in best)


def told_of(paths, split):
    """Of each file the line of the results.jsonl beside it that tells of it, or {}."""
    lines = []
    for path in paths:
        try:
            results, _ = resultsfile.read_results(path.parent / resultsfile.RESULTS)
        except UserError:  # predictions from elsewhere
            results = []
        lines.append(resultsfile.line_of(results, path, split))
    return lines


def seed_of(lines, seed):
    """The seed of the runs combined, '0+1' where they differ; `seed` where one is not known.

    Nothing is drawn here: runs of other seeds are what results.py --mean averages over.
    """
    seeds = [line.get('seed') for line in lines]
    if None in seeds:
        return seed
    return seeds[0] if len(set(seeds)) == 1 else '+'.join(map(str, seeds))


def save(path, clips, logs, classes, method, split):
    """Writes combined predictions, one row a clip; returns the figures that the file gives."""
    predictionfile.write_predictions(
        path, ((clip.name, numpy.exp(row)[None]) for clip, row in zip(clips, logs)), classes,
        method, split)
    return predictionfile.score_file(path, clips)


def check(args):
    if len(args.files) < 2:
        raise UserError('combine.py: two files or more, please')
    if len(set(args.files)) < len(args.files):
        raise UserError('combine.py: a file is given twice; --weights says how much one counts')
    if args.weights and args.choose:
        raise UserError('--weights and --choose: one of the two')
    if args.folds and not args.choose:
        raise UserError('--folds: beside --choose, as it says which clips choose the weights')
    if args.folds and any(map(variants.fold_of, args.files)):
        raise UserError('--folds: give the files of the runs without --fold; those of the folds '
                        'are found by their names')
    if args.weights and (len(args.weights) != len(args.files)
                         or not 0 < sum(args.weights) < float('inf')):
        raise UserError(f'--weights: {len(args.files)} numbers, one a file, none below 0 and not '
                        'all 0')
    if os.path.basename(args.name) != args.name or not args.name:
        raise UserError(f'--name {args.name}: a name, not a path')


def main():
    args = stage.parse(get_parser())
    check(args)
    lists = hf.read_lists(args.root, args.split)
    paths = [files.find_file(name, args.root) for name in args.files]
    of_folds = {variants.fold_of(path) for path in paths}
    args.name = variants.name_in_fold(args.name, of_folds.pop() if len(of_folds) == 1 else '')
    out, validation_out = (args.root / f'{args.name}_{kind}Predictions.hdf5'
                           for kind in ('test', 'validation'))
    for path in [*paths, *(validation_file(path) for path in paths
                           if 'testPredictions' in path.name)]:
        if path.resolve() in (out.resolve(), validation_out.resolve()):
            raise UserError(f'--name {args.name}: would write over {path}, which is read; '
                            'give another --name')
    if (model := args.root / f'{args.name}.model').exists():
        raise UserError(f'--name {args.name}: {out.name} holds what {model} predicts; give another '
                        '--name')
    weights = args.weights or [1.0] * len(paths)
    with locks.only_one(out):
        resultsfile.check_outputs(args.root, out.name, validation_out.name)
        combine_files(args, lists, paths, weights, out, validation_out)


def say_of_folds(folds, asked):
    """Says that the files are of several folds; refuses where validation clips are asked for."""
    text = f'the files are of several folds ({", ".join(sorted(fold or "none" for fold in folds))})'
    if asked:
        raise UserError(f'{asked}: {text}, which held out other clips; give files of one, or '
                        '--weights alone')
    print(f'{text}: what comes of them is of no fold, and no clip validates it')


def combine_files(args, lists, paths, weights, out, validation_out):
    """Finds temperatures and weights where they are asked for, and writes what comes of them."""
    validation, of_folds = None, {variants.fold_of(path) for path in paths}
    temperatures, found = [1.0] * len(paths), {}
    asked = '--choose' if args.choose else '--calibrate' if args.calibrate else ''
    if len(of_folds) > 1:
        say_of_folds(of_folds, asked)
    if asked and not args.folds or len(of_folds) == 1 and all(
            'testPredictions' in path.name and validation_file(path).exists() for path in paths):
        validation = read([validation_file(path) for path in paths], lists.train, lists,
                          args.split, 'validation', '' if args.folds else asked)
    if asked:
        clips, logs, _ = (read_folds(paths, lists.train, lists, args.split, args.folds, asked)
                          if args.folds else validation)
        labels = [clip.label for clip in clips]
        if args.calibrate:
            temperatures = [calibration.fit_temperature(of_file, labels) for of_file in logs]
            found = {'calibrated': True, 'temperatures': temperatures}
        if args.choose:
            weights = choose(tempered(logs, temperatures), labels)
    weights = [float(weight / sum(weights)) for weight in weights]

    # The only place that reads the test clips, after all this is settled.
    clips, logs, methods = read(paths, lists.test, lists, args.split, 'test')
    logs = tempered(logs, temperatures)
    method = ' + '.join(methods)
    for path, weight, temperature, of_file in zip(paths, weights, temperatures, logs):
        alone = scoring.score(of_file, [clip.label for clip in clips])
        print(f'{weight:.3f}  {path.name}'
              + f' at temperature {temperature:.2f}' * args.calibrate
              + f':  {scoring.in_words(alone)}')
    figures = save(out, clips, combine(logs, weights), lists.classes, method, args.split)
    if validation:
        held_out, of_held_out, _ = validation
        save(validation_out, held_out, combine(tempered(of_held_out, temperatures), weights),
             lists.classes, method, args.split)
        figures.update(calibration.figures(calibration.read_logs(validation_out, held_out),
                                           calibration.read_logs(out, clips)))
        labels = [clip.label for clip in held_out]
        alone = ', '.join(f'{scoring.score(of_file, labels)["top1"]:.3f}'
                          for of_file in of_held_out)
        print(f'validation:  top-1 {alone} alone, {figures["validation_accuracy"]:.3f} combined  '
              f'(n {len(labels)})')
    else:
        validation_out.unlink(missing_ok=True)  # of an earlier combination of this name
    lines = told_of(paths, args.split)
    if all(lines):
        figures['members'] = [means.as_member(line) for line in lines]
    resultsfile.append_result(
        args.root, method, args.split, 'video', seed_of(lines, args.seed),
        {'files': [path.name for path in paths], 'weights': weights, 'chosen': args.choose,
         **found, **({'folds': args.folds} if args.folds else {})},
        predictions=out.name, **({'fold': fold} if (fold := variants.fold_of(out)) else {}),
        **figures)
    print(f'{method} by video:  {scoring.in_words(figures)}{calibration.in_words(figures)}')
    print(f'wrote {out}; next: python confusion.py{variants.place(args.root, args.split)} '
          + shlex.join([str(args.files[0]), out.name]))


if __name__ == '__main__':
    stage.run(main)
