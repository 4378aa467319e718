"""The runs that a root holds, as report.py shows them: predictions and logs, read."""
import math
from pathlib import Path
from typing import NamedTuple

import numpy

from engine.errors import UserError
from engine.files import read_json
from engine.hdf5 import clip_names, open_hdf5
from engine.progress import number_of
from engine.reporting.baselines import (baseline_of, of_others, same_features, sees_order,
                                        trained_otherwise, what_makes_one)
from engine.reporting.readout import Method, decide, first_few, read_clips
from engine.reporting.resultsfile import is_number, line_of, settings_of
from engine.reporting.scoring import video_log_probability
from engine.variants import (FUSIONS, LAYERS, STREAMS, TEST_SUFFIX, VALIDATION_SUFFIX, VARIANTS,
                             Names, fold_of, fold_suffix, place, split_fold)

FRAMES = 'frames'                  # the run that frameBasedTrain.py makes
POSITIONS = (10, 30, 60, 120)      # frames; in the table
CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 120, 180, 250, 350, 500, 700, 1000)
MOST_RUNS = 5                      # without --runs: six lines can be told apart in a chart


class Run(NamedTuple):
    """One method's predictions of the test clips (n of them)."""

    name: str                  # 'frames', or the NAME of rnn.py --name NAME
    method: Method   # its label a clip; method.name is what the page calls it
    probability: dict          # clip name -> (C,) of the whole clip, as the file reads it out
    lengths: dict              # clip name -> frames or steps
    curve: dict                # k -> (share right, mean probability of the class named)
    readout: str

    @property
    def title(self):
        return self.method.name


def read_run(name, path, lists, split):
    """Reads a prediction file and reads out its first k frames for every k of CURVE.

    A clip of fewer than k frames is read out whole, so that every point counts the same
    clips. Points that fewer than a tenth of the clips reach are left out.
    """
    clips, missing, found, attrs = read_clips(path, lists, split)
    readout = attrs['readout']
    lengths = {clip.name: len(found[clip.name]) for clip in clips}
    # Where there is one row a clip, segments have been joined: no position is left in it.
    reached = [k for k in sorted({*CURVE, *POSITIONS}) if max(lengths.values()) > 1
               and sum(n >= k for n in lengths.values()) >= 0.1 * len(clips)]
    hits, sureness = dict.fromkeys(reached, 0), dict.fromkeys(reached, 0.0)
    said, probability = {}, {}
    for clip in clips:
        frames = found.pop(clip.name)
        whole = video_log_probability(frames, readout)
        said[clip.name] = decide(whole, clip.label)
        probability[clip.name] = numpy.exp(whole)
        for k in reached:
            logs = video_log_probability(frames[:k], readout) if k < len(frames) else whole
            hits[k] += decide(logs, clip.label) == clip.label
            sureness[k] += float(numpy.exp(logs.max()))
    method = Method(attrs.get('method', name), path, clips, missing, said)
    return Run(name, method, probability, lengths,
               {k: (hits[k] / len(clips), sureness[k] / len(clips)) for k in reached}, readout)


def frames_of(name):
    """The Names of the frame network whose run is called so ('frames', 'frames_flow',
    'frames_fold2of5'); None of a run of another stage."""
    plain, fold = split_fold(name)
    return VARIANTS[plain]._replace(fold=fold) if plain in VARIANTS else None


def training_folder(root, name):
    names = frames_of(name)
    return root / (names.of('frameTraining') if names else f'{name}.training')


def predictions_path(root, name):
    names = frames_of(name)
    return root / (names.test_predictions if names else name + TEST_SUFFIX)


def validation_path(root, name):
    names = frames_of(name)
    return root / (names.validation_predictions if names else name + VALIDATION_SUFFIX)


def run_of(file_name):
    """The run that a file of test predictions is of: the other way round."""
    suffix = fold_suffix(fold_of(file_name))
    return next((name + suffix for name in VARIANTS
                 if frames_of(name + suffix).test_predictions == file_name),
                file_name.removesuffix(TEST_SUFFIX))


def names_of_run(root, name, results, split):
    """The Names of the features that a run saw; of a run that no line tells of, the plain ones."""
    settings = settings_of(results, predictions_path(root, name), split)
    return frames_of(name) or Names(*(
        settings[key] if settings.get(key) in values else values[0] for key, values in (
            ('stream', STREAMS), ('fusion', FUSIONS), ('layer', LAYERS))), split_fold(name)[1])


def read_log(root, name):
    """One dict an epoch of a run's training, with numbers only; [] where there is none.

    Raises:
        UserError: the log is not one that a training writes.
    """
    path = training_folder(root, name) / 'log'
    epochs = read_json(path) or []
    if not (isinstance(epochs, list) and all(isinstance(e, dict) for e in epochs)):
        raise UserError(f'{path}: not the log of a training; train again with --restart')
    return [{key: value for key, value in epoch.items()
             if is_number(value) and abs(value) < 1e300} for epoch in epochs]


def sees_first_frames(settings):
    """Whether step k of a prediction file is frame k of the clip, seen after those before."""
    return (settings.get('inference', 'full') in ('full', 'first')
            and not settings.get('reverse_too'))


def find_runs(root, results, split, notes):
    """Names of the runs in ROOT but the frames, lowest validation loss first."""
    names = {path.name.removesuffix(TEST_SUFFIX) for path in root.glob('*' + TEST_SUFFIX)}
    names |= {name for name, variant in VARIANTS.items()
              if name != FRAMES and (root / variant.test_predictions).exists()}
    names |= {path.parent.name.removesuffix('.training') for path in root.glob('*.training/log')}
    if of_folds := sorted(name for name in names if split_fold(name)[1]):
        names -= set(of_folds)  # they look at parts; their mean is for results.py
        notes.append(f'not shown unless named: {number_of(len(of_folds), "run")} of folds (--runs '
                     f'{of_folds[0]}); their mean: python results.py{place(root)} --mean folds')

    def loss(name):
        told = line_of(results, predictions_path(root, name), split).get('validation_loss')
        if is_number(told) and math.isfinite(told):
            return told
        try:
            return min((epoch['validation/main/loss'] for epoch in read_log(root, name)
                        if 'validation/main/loss' in epoch), default=math.inf)
        except UserError:
            return math.inf  # named where the curves are drawn
    order = sorted(names, key=lambda name: (loss(name), name))
    if len(order) > MOST_RUNS:
        notes.append(f'{len(order)} runs are here; shown in curves and matrices: the '
                     f'{MOST_RUNS} of lowest validation loss. Others: --runs NAME ...; not '
                     f'shown: {first_few(order[MOST_RUNS:], 20)}')
    return order[:MOST_RUNS]


def run_without_order(root, name, results, split, notes):
    """Name of the run to hold against run `name`, on the same features without their order."""
    line = line_of(results, predictions_path(root, name), split)
    if not line or not sees_order(line):
        return None
    other = baseline_of(line, [result for result in results if result.get('predictions')])
    if other is None:
        notes.append(f'no run without order to tell what order adds{of_others(line, results)}; '
                     f'made by: {what_makes_one(line)}')
        return None
    blind = Path(other['predictions']).name.removesuffix(TEST_SUFFIX)
    if differ := trained_otherwise(line, other):
        notes.append(f'{name} is held against {blind}, {differ}; with the same flags: '
                     + what_makes_one(line))
    return blind


def say_if_of_other_features(runs, root, results, split, notes):
    """Notes that two Runs on one variant of features were made from different ones of it."""
    variants = {names_of_run(root, run.name, results, split) for run in runs}
    lines = [line_of(results, run.method.path, split) for run in runs]
    if len(runs) == 2 and len(variants) == 1 and not same_features(*lines):
        notes.append(f'{runs[0].name} and {runs[1].name} were made from different features, as '
                     'their lines tell: what one gains over the other is of these, too; make both '
                     'from those that are there now')


def count_clips(path):
    """Number of clips in a prediction file; None where it is not there."""
    try:
        with open_hdf5(path, '') as f:
            return len(clip_names(f))
    except UserError:
        return None
