"""Events in files: tables, subtitles, and a project of the annotation program BORIS."""
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.events.intervals import film_stem
from engine.files import csv_text, read_json, write_text
from engine.video.container import header_of
from engine.video.ffmpeg import command, opened, run

EVENTS_SUFFIX = '.events.csv'
PREDICTED_SUFFIX = '.predicted'  # in the names of what predict.py writes of a film
SUBTITLES_SUFFIX = '.srt'
WRITTEN = 'written'  # in NAME.predicted.json: digests of the other files
EVENTS_HEADING = ('film', 'class', 'start', 'stop', 'probability')
# Stands in a BORIS project before the digest of all else in it: who corrects a project has it
# saved by BORIS under the same name, and what people did is never written over.
FOUND = 'events as found by predict.py '
BUDGET_HEADING = ('film', 'class', 'events', 'seconds', 'share', 'first start', 'mean length')


class Film(NamedTuple):
    """A film that was looked at: its path, its length in seconds, and its Events in order; where
    they are kept, the `merging.moments` that these are made of."""
    path: str
    seconds: float
    events: list
    moments: tuple = None


def write_film(stem, film, found, subtitles=False):
    """Writes the events of a Film: STEM.events.csv, EVENTS_HEADING, seconds with three decimals;
    with `subtitles` STEM.srt, too. Says what it wrote.

    Before these it writes `found` (dict) as STEM.predicted.json, with the digests of what may
    stand in them from then on, by which `changed` knows them again.

    Returns:
        '' or the line of `changed`; then nothing is written.
    """
    if line := changed(stem, subtitles):
        return line
    texts = {EVENTS_SUFFIX: csv_text([EVENTS_HEADING, *(
        (film.path, event.label, *(f'{value:.3f}' for value in event[1:]))
        for event in film.events)])}
    if subtitles:
        texts[SUBTITLES_SUFFIX] = subtitles_of(film.events)
    found[WRITTEN] = {**written(stem).get(WRITTEN, {}), **{
        # killed in between, the old file still stands there
        ending: [digest for digest in (_digest_in(stem + ending), _digest(text)) if digest]
        for ending, text in texts.items()}}
    write_text(f'{stem}{PREDICTED_SUFFIX}.json', json.dumps(found) + '\n')
    for ending, text in texts.items():
        write_text(stem + ending, text)
    spent = sum(event.stop - event.start for event in film.events)
    print(f'wrote {stem}{EVENTS_SUFFIX}{" and .srt" * subtitles}: {len(film.events)} events, '
          f'{spent:.1f} s of {film.seconds:.1f}', flush=True)
    return ''


def written(stem):
    """What STEM.predicted.json says of the files that `write_film` wrote: {WRITTEN: {ending:
    [digest]}}, or {}."""
    try:
        found = read_json(f'{stem}{PREDICTED_SUFFIX}.json')
    except UserError:  # whatever it is, it tells nothing of them
        return {}
    found = found.get(WRITTEN) if isinstance(found, dict) else None
    return {WRITTEN: found} if isinstance(found, dict) else {}


def changed(stem, subtitles=False):
    """A line about a file that `write_film` would write over, and that is not as it left it; ''
    where there is none."""
    known = written(stem).get(WRITTEN, {})
    for ending in (EVENTS_SUFFIX, SUBTITLES_SUFFIX)[:1 + subtitles]:
        path = stem + ending
        if os.path.lexists(path) and _digest_in(path) not in known.get(ending, ()):
            return (f'{path}: not as predict.py wrote it, perhaps corrected by hand, or of another '
                    'program, or of an earlier predict.py; move it away, or give another --out')
    return ''


def write_budget(path, films, classes):
    """Writes how each Film's time was spent: a line for each class.

    BUDGET_HEADING; seconds with three decimals, `share` of the film's length. A class that never
    happens has 0 events and neither a first start nor a mean length.
    """
    def lines():
        for film in films:
            for name in classes:
                lengths = [event.stop - event.start for event in film.events
                           if event.label == name]
                first = [f'{event.start:.3f}' for event in film.events if event.label == name]
                total = sum(lengths)
                yield (film.path, name, len(lengths), f'{total:.3f}',
                       f'{total / film.seconds if film.seconds else 0:.4f}',
                       first[0] if first else '',
                       f'{total / len(lengths):.3f}' if lengths else '')
    write_text(path, csv_text([BUDGET_HEADING, *lines()]))
    print(f'wrote {path}', flush=True)


def subtitles_of(events):
    """Events as SubRip subtitles, which players show with the film beside them."""
    def stamp(seconds):
        milliseconds = round(1000 * seconds)
        minutes, rest = divmod(milliseconds, 60000)
        return f'{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}'
    return '\n'.join(f'{number}\n{stamp(event.start)} --> {stamp(event.stop)}\n'
                     f'{event.label} {100 * event.probability:.0f} %\n'
                     for number, event in enumerate(events, 1))


def write_boris(path, films, classes):
    """Writes a BORIS project of format 7: each Film an observation, each class a state event.

    BORIS opens it, or imports its observations into another project that has the same
    behaviours. Each start carries the event's probability as its comment.
    """
    now = time.strftime('%Y-%m-%dT%H:%M:%S')
    behaviours = {str(number): {
        'type': 'State event', 'key': '', 'code': name, 'description': '', 'color': '',
        'category': '', 'modifiers': {}, 'excluded': '', 'coding map': ''}
        for number, name in enumerate(classes)}
    observations = {}
    for film in films:
        # two folders may hold films of one name
        name = film_stem(film.path)
        name = film.path if name in observations else name
        observations[name] = _observation(film, now)
    text = json.dumps({
        'time_format': 'hh:mm:ss', 'project_date': now, 'project_name': Path(path).stem,
        'project_description': FOUND, 'project_format_version': '7.0',
        'subjects_conf': {}, 'behaviors_conf': behaviours, 'observations': observations,
        'behavioral_categories': [], 'behavioral_categories_config': {},
        'independent_variables': {}, 'coding_map': {}, 'behaviors_coding_map': [],
        'converters': {}}, indent=1) + '\n'
    write_text(path, text.replace(FOUND, FOUND + _digest(text)))
    print(f'wrote {path}', flush=True)


def _digest(text):
    return hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]


def _digest_in(path):
    """The digest of a file's text, None where it holds none."""
    try:
        with open(path, encoding='utf-8', errors='surrogateescape', newline='') as f:
            return _digest(f.read())
    except OSError:
        return None


def check_boris(path):
    """Refuses a path at which a project stands that is not as `write_boris` left it."""
    try:
        text = Path(path).read_text(encoding='utf-8')
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        text = ''
    found = re.search(f'{FOUND}([0-9a-f]{{16}})', text)
    if not found or _digest(text.replace(found[0], FOUND)) != found[1]:
        raise UserError(f'{path}: changed since predict.py wrote it, perhaps corrected in BORIS; '
                        'move it away, or give another --out')


def _observation(film, now):
    media = os.path.abspath(film.path)
    header = header_of(run(command(*opened(media)), media).log)
    rate = header.film.rate if header.film else 0.0
    marks = [(round(moment, 3), event.label, comment) for event in film.events
             for moment, comment in ((event.start, f'{event.probability:.3f}'), (event.stop, ''))]
    return {
        'file': {str(player): [media] if player == 1 else [] for player in range(1, 9)},
        'type': 'MEDIA', 'date': now, 'description': '', 'time offset': 0.0,
        'events': [[moment, '', label, '', comment] for moment, label, comment in marks],
        'observation time interval': [0, 0], 'independent_variables': {},
        'visualize_spectrogram': False, 'visualize_waveform': False,
        'close_behaviors_between_videos': False,
        'media_info': {'length': {media: round(film.seconds, 3)},
                       'fps': {media: rate or 25.0},
                       'hasVideo': {media: True}, 'hasAudio': {media: bool(header.sounds)},
                       'offset': {'1': 0.0}}}
