"""Which events and which annotations belong to one film."""
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.events.annotations import read_annotations
from engine.events.eventfiles import EVENTS_SUFFIX, PREDICTED_SUFFIX
from engine.events.intervals import class_name, film_stem
from engine.files import files_under, read_json

TOUCHING = 2e-3  # seconds: times are written with three decimals


class Compared(NamedTuple):
    """A film that was looked at and annotated: its name, its length in seconds, and two lists of
    (label, start, stop) in the order of their starts."""
    name: str
    seconds: float
    truth: list
    predicted: list


def event_tables(paths):
    """The tables of events among files and below folders, in order.

    Raises:
        UserError: a folder holds none.
    """
    found = []
    for path in map(Path, paths):
        inside = [path]
        if path.is_dir():
            inside = [file for file in files_under(path) if file.name.endswith(EVENTS_SUFFIX)]
            if not inside:
                raise UserError(f'{path}: holds no NAME{EVENTS_SUFFIX}; make them: python '
                                f'predict.py FILM... --out {path} --events')
        found += [file for file in inside if file not in found]
    return found


def compare(events, annotations, other, **reading):
    """Brings together what was said and what is true.

    Args:
        events: tables of events. Beside NAME.events.csv stands NAME.predicted.json, which knows the
            film's name and length; of a table of several films one of each.
        annotations: files; reading: tiers and around of `read_annotations`.
        other: what is marked so, or called so, is nothing.

    Returns:
        (list of Compared, names of the labels in them, lines on what counts otherwise than one
        may think, lines that each name a film or row that was left out).
    """
    marks, notes, problems = {}, [], []
    for path in annotations:
        try:
            found, wrong = read_annotations(path, **reading)
        except UserError as error:
            found, wrong = [], [str(error)]
        problems += wrong
        for mark in found:
            marks.setdefault(film_stem(mark.film), []).append(mark)
    said = {}
    for path in events:
        films, wrong = _read_events(path)
        problems += wrong
        for name, (seconds, found) in films.items():
            said.setdefault(name, []).append((path, seconds, found))
    names = sorted({class_name(mark.label) for name in said.keys() & marks.keys()
                    for mark in [*marks[name], *said[name][0][2]]} - {other})
    films = []
    for name, tables in said.items():
        path, seconds, found = tables[0]
        if len(tables) > 1:
            problems.append(f'{name}: {len(tables)} tables are of films called so, {path} and '
                            f'{tables[1][0]}; compare them one at a time')
        elif name not in marks:
            problems.append(f'{path}: no annotation of a film called {name}')
        else:
            film, words = _film(name, seconds, marks[name], found, names)
            films.append(film)
            notes += words
    problems += [f'{found[0].where}: no events of a film called {name}'
                 for name, found in marks.items() if name not in said]
    return films, names, notes, problems


def _read_events(path):
    """({name of film: (seconds or None, intervals)}, problems) of a table of events."""
    def beside(name):
        return read_json(path.parent / f'{name}{PREDICTED_SUFFIX}.json') or {}
    found, problems = read_annotations(path)
    name = path.name.removesuffix(EVENTS_SUFFIX)
    told, films = beside(name), {}
    for mark in found:
        films.setdefault(film_stem(mark.film), []).append(mark)
    if not films:
        films[film_stem(told.get('video', name))] = []

    def length(film):
        known = told if len(films) == 1 else beside(film)
        return known['windows'][-1]['to'] if known else None
    return {film: (length(film), marks) for film, marks in films.items()}, problems


def _labelled(marks, names):
    """[(label, start, stop)] in the order of their starts. Marks of one class that touch or overlap
    are one event, as they are over frames: two people may do the same at a time."""
    events = []
    for label, name in enumerate(names):
        last = None
        for mark in sorted((mark for mark in marks if class_name(mark.label) == name),
                           key=lambda mark: mark.start):
            if last and mark.start <= last[2] + TOUCHING:
                last[2] = max(last[2], mark.stop)
            else:
                last = [label, mark.start, mark.stop]
                events.append(last)
    return sorted(map(tuple, events), key=lambda event: event[1:])


def _film(name, seconds, marks, events, names):
    """(Compared, lines on what counts otherwise) of a film."""
    truth, predicted = (_labelled(found, names) for found in (marks, events))
    words = []
    last = max((mark.stop for mark in marks + events), default=0.0)
    if seconds is None:
        words.append(f'{name}: no {name}{PREDICTED_SUFFIX}.json tells its length; frames are '
                     f'counted up to its last mark, {last:.1f} s')
        seconds = last
    elif last > seconds + 1:
        words.append(f'{name}: marked up to {last:.1f} s, but it ends at {seconds:.1f} s: other '
                     'film, or another rate?')
    double = sum(max(0, min(before[2], after[2]) - after[1])
                 for before, after in zip(truth, truth[1:]))
    if double > 0.5:
        words.append(f'{name}: {double:.1f} s are marked as two things at once; of frames the one '
                     'that began last counts')
    return Compared(name, seconds, truth, predicted), words
