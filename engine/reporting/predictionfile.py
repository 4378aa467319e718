"""Prediction files: HDF5, one (frames or steps, classes) array of probabilities a clip."""
import json

import numpy

from engine.weights.cardchecks import check_classes
from engine.errors import UserError
from engine.hdf5 import attributes, data_set, open_hdf5, read, writing
from engine.reporting.scoring import READOUTS, score_videos
from engine.variants import fold_of


def write_predictions(path, predictions, classes, method, split, readout='mean'):
    """Writes a prediction file: one (T, C) float32 data set a clip, key = clip name.

    Args:
        predictions: iterable of (clip name, (T, C) softmax).
        readout: one of READOUTS, else a UserError, and no file.
    """
    if readout not in READOUTS:
        raise UserError(f'{path}: readout {readout!r}: none of {", ".join(READOUTS)}')
    with writing(path) as (f,):
        for name, probabilities in predictions:
            f.add(name, numpy.asarray(probabilities, numpy.float32))
        f.tell(classes=json.dumps(list(classes)), method=method, split=split, readout=readout,
               fold=fold_of(path))


def said(f):
    """What an open prediction file says of itself: hdf5.attributes, with its readout.

    Raises:
        UserError: its readout is none, or it is of another fold than its name tells.
    """
    attrs = {'readout': 'mean', **attributes(f)}
    told, named = attrs.get('fold', '' if 'stream' in attrs else None), fold_of(f.filename)
    if told not in (None, named):  # older files of rnn.py and combine.py tell of none
        raise UserError(f'{f.filename}: predictions of ' + (
            f'--fold {told}, which its name does not tell' if told else
            f'no fold, but its name tells --fold {named}') + '; rename it')
    if attrs['readout'] not in READOUTS:
        raise UserError(f'{f.filename}: its readout is {attrs["readout"]!r}, not one of '
                        f'{", ".join(READOUTS)}; make it again')
    return attrs


def read_predictions(path, clips, classes=None, made_by='the stage that writes it'):
    """Returns ({clip name: (T, C) float32}, attrs) of the given clips from a prediction file.

    Clips that the file lacks are simply not in the dict; the caller names them.
    """
    with open_hdf5(path, made_by) as f:
        found = {clip.name: data for clip, data in each_prediction(f, clips, classes, made_by)}
        return found, said(f)


def each_prediction(f, clips, classes=None, made_by='the stage that writes it'):
    """Yields (clip, (T, C) float32) from an open prediction file, one after the other."""
    path = f.filename
    if classes is not None:
        check_classes(path, said(f), classes)
    for clip in clips:
        if data_set(f, clip.name, made_by) is not None:
            data = read(f, clip.name, made_by)
            if reason := _problem(data, classes):
                raise UserError(f'{path}: {clip.name} {reason}; make it again: {made_by}')
            yield clip, data


def score_file(path, clips, made_by='the stage that writes it'):
    """Scores by video, as scoring.score: the figures that anyone finds in a prediction file."""
    with open_hdf5(path, made_by) as f:
        return score_videos(((clip.name, data) for clip, data in each_prediction(f, clips)), clips,
                            said(f)['readout'])


def _problem(data, classes):
    if data.ndim != 2 or classes is not None and data.shape[1] != len(classes):
        return f'has shape {data.shape}, expected (frames, {len(classes or ()) or "classes"})'
    if not len(data):
        return 'has no frame'
    if not numpy.isfinite(data).all():
        return 'holds what is no probability (not finite)'
    if data.min() < 0 or data.max() > 1.001:
        return 'holds what is no probability (not from 0 to 1)'
    return '' if (data.max(axis=1) > 0).all() else 'holds a frame without any probability'
