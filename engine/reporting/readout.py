"""What a method says of each clip: its prediction file read out, one label a clip."""
from pathlib import Path
from typing import NamedTuple

import numpy

from engine.errors import UserError
from engine.reporting.counted import label_of
from engine.reporting.predictionfile import read_predictions
from engine.reporting.scoring import ranks, video_log_probability
from engine.variants import maker_of


class Method(NamedTuple):
    """What one method said of each clip it was asked about."""

    name: str
    path: Path
    clips: list    # those of the list that the file holds
    missing: list  # names of those that it lacks
    said: dict     # clip name -> label, int from 0


def read_clips(path, lists, split=1):
    """Reads what a prediction file holds of the lists' clips.

    A file without any test clip is taken as one of validation clips, which are part
    of the train list.

    Returns:
        (clips, missing, found, attrs): the clips that it holds; names of the test clips
        that it lacks; dict clip name -> (frames, classes) float32; the file's attributes.

    Raises:
        UserError: the file was made for other classes or another split, holds no
            clip of the lists, or holds something that is not a probability.
    """
    made_by = maker_of(path, split)
    found, attrs = read_predictions(path, lists.test, lists.classes, made_by)
    clips = [clip for clip in lists.test if clip.name in found]
    missing = [clip.name for clip in lists.test if clip.name not in found]
    if not clips:
        found, attrs = read_predictions(path, lists.train, lists.classes, made_by)
        clips, missing = [clip for clip in lists.train if clip.name in found], []
    if attrs.get('split', split) != split:
        raise UserError(f'{path}: made for split {attrs["split"]}, but the lists read are those '
                        f'of split {split}; add --split {attrs["split"]}')
    if not clips:
        raise UserError(f'{path}: holds no clip of split {split}; made by: {made_by}')
    return clips, missing, found, attrs


def read_method(path, lists, split=1, without=None):
    """Reads a prediction file and decides one label a clip: a Method.

    Frames are joined as the file's own `readout` says. Clips of the class `without` are left out,
    and the method's name says so.

    Raises:
        UserError: as read_clips; there is no such class, or no clip of another one.
    """
    clips, missing, found, attrs = read_clips(path, lists, split)
    readout, name = attrs['readout'], attrs.get('method', path.stem)
    if (label := label_of(without, lists.classes)) is not None:
        left_out = {clip.name for clip in lists.test + lists.train if clip.label == label}
        clips = [clip for clip in clips if clip.name not in left_out]
        missing = [clip for clip in missing if clip not in left_out]
        name += f' without {without}'
        if not clips:
            raise UserError(f'{path}: holds clips of {without} alone')
    said = {clip.name: decide(video_log_probability(found[clip.name], readout), clip.label)
            for clip in clips}
    return Method(name, path, clips, missing, said)


def decide(log_probabilities, label):
    """The class with the highest score; a tie is decided against the true class, as in score."""
    return int(ranks(log_probabilities[None], numpy.array([label]))[2][0])


def first_few(names, few=3):
    return ', '.join(names[:few]) + (' ...' if len(names) > few else '')
