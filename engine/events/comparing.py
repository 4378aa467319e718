"""Which events and which annotations belong to one film."""
import itertools
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.events.annotations import read_annotations
from engine.events.elan import Tiers
from engine.events.eventfiles import EVENTS_SUFFIX, PREDICTED_SUFFIX
from engine.events.films import Known
from engine.events.intervals import class_name, film_path, film_stem
from engine.files import files_under, read_json

TOUCHING = 2e-3  # seconds: times are written with three decimals


class Compared(NamedTuple):
    """A film that was looked at and annotated: its name, its length in seconds, and two lists of
    (label, start, stop) in the order of their starts."""
    name: str
    seconds: float
    truth: list
    predicted: list


class _Said(NamedTuple):
    """What was said of a film: its path as the table tells it, the table, its length in seconds
    (None: not known), and its Intervals."""
    path: str
    table: Path
    seconds: float
    marks: list


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


def compare(events, annotations, other, *, tiers=None, around=None):
    """Brings together what was said and what is true.

    Args:
        events: tables of events. Beside NAME.events.csv stands NAME.predicted.json, which knows the
            film's name and length; of a table of several films one of each.
        annotations: files; tiers, around: of `read_annotations`.
        other: what is marked so, or called so, is nothing.

    Returns:
        (list of Compared, names of the labels in them, lines on what counts otherwise than one
        may think, lines that each name a film or row that was left out).

    Raises:
        UserError: no annotation has one of the tiers.
    """
    marks, notes, problems, tiers = {}, [], [], Tiers(tiers)
    for path in annotations:
        try:
            found, wrong = read_annotations(path, tiers=tiers, around=around)
        except UserError as error:
            found, wrong = [], [str(error)]
        problems += wrong
        for mark in found:
            marks.setdefault(film_path(mark.film), []).append(mark)
    tiers.check()
    said = {}
    for path in events:
        films, wrong = _read_events(path)
        problems += wrong
        for film in films:
            said.setdefault(film.path, []).append(film)
    meant, strange = _meant(marks, [tables[0] for tables in said.values()])
    pairs = []
    for path, (film, *more) in said.items():
        mine = _of_one_film(path, meant[path])
        if more:
            problems.append(f'{film_stem(path)}: {1 + len(more)} tables are of films called so, '
                            f'{film.table} and {more[0].table}; compare them one at a time')
        elif not meant[path]:
            problems.append(f'{film.table}: no annotation of a film called {film_stem(path)}')
        elif not mine:
            problems.append(f'{film.table}: any of {", ".join(meant[path])} may be {path}; '
                            'left out')
        else:
            problems += [f'{marks[name][0].where}: {name} is another film than {path}; left out'
                         for name in meant[path] if name not in mine]
            pairs.append((film, [mark for name in mine for mark in marks[name]]))
    names = sorted({class_name(mark.label) for film, truth in pairs
                    for mark in [*truth, *film.marks]} - {other})
    films, times = [], Counter(map(film_stem, said))
    for film, truth in pairs:
        stem = film_stem(film.path)
        found, words = _film(stem if times[stem] == 1 else film.path, film.seconds, truth,
                             film.marks, names)
        films.append(found)
        notes += words
    return films, names, notes, problems + strange


def _meant(marks, films):
    """({path of each _Said film: [name in marks that means it]}, lines about other names)."""
    known, meant, strange = Known(films), {film.path: [] for film in films}, []
    for name, found in marks.items():
        fitting = known.meant_by(name)
        if len(fitting) == 1:
            meant[fitting[0].path].append(name)
        elif fitting:
            strange.append(f'{found[0].where}: the film {name} may be '
                           f'{" or ".join(film.path for film in fitting)}; left out')
        else:
            strange.append(f'{found[0].where}: no events of a film called {film_stem(name)}')
    return meant, strange


def _of_one_film(path, names):
    """The names that mean the film at a path, of those with its stem: the ones that agree with it
    in ending and folders as far as they have some, else the nearest; none where these may be
    several films."""
    shared = {name: _agreeing(name, path) for name in names}
    best = max(shared.values(), default=0)
    nearest = [name for name in names if shared[name] == best]
    one = all(_agreeing(*pair) == math.inf for pair in itertools.combinations(nearest, 2))
    return nearest if one else []


def _agreeing(one, other):
    """In how many parts two names of films agree, from their endings up through their folders,
    until they differ; infinite where they never do."""
    def parts(name):
        folders, _, last = film_path(name).lower().rpartition('/')
        return [last.removeprefix(film_stem(last)), *folders.split('/')[::-1]]
    differ = [a != b and '' not in (a, b) for a, b in zip(parts(one), parts(other))]
    return differ.index(True) if True in differ else math.inf


def _read_events(path):
    """([_Said], problems) of a table of events."""
    def beside(name):
        return read_json(path.parent / f'{name}{PREDICTED_SUFFIX}.json') or {}
    found, problems = read_annotations(path)
    name = path.name.removesuffix(EVENTS_SUFFIX)
    told, films = beside(name), {}
    for mark in found:
        films.setdefault(film_path(mark.film), []).append(mark)
    if not films:
        films[film_path(told.get('video', name))] = []

    def length(film):
        known = (len(films) == 1 and told) or beside(film_stem(film))
        right = len(films) == 1 or known and _agreeing(known['video'], film) == math.inf
        return known['windows'][-1]['to'] if known and right else None
    return [_Said(film, path, length(film), marks) for film, marks in films.items()], problems


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
