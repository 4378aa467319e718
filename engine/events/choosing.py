"""With which settings the events of films are most like what was marked in them."""
import itertools
from typing import NamedTuple

import numpy

from engine.errors import UserError
from engine.events.annotations import read_annotations
from engine.events.comparing import compare
from engine.events.eventscores import OVERLAPS, Scores
from engine.events.intervals import class_name, film_path, film_stem
from engine.events.merging import merge

THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SECONDS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)  # of --gap and --shortest


class Settings(NamedTuple):
    """What `merge` takes: a probability, and seconds."""
    threshold: float
    gap: float
    shortest: float

    def in_words(self):
        return (f'--threshold {self.threshold:g} --gap {self.gap:g} --shortest '
                f'{self.shortest:g}')


def choose(films, classes, other, given):
    """The best Settings of a grid, and how good they and the given ones are.

    The best have the highest mean of F1 at OVERLAPS, and of equals the most frames right; where
    nothing is better than the given ones, these stay.

    Args:
        films: [(edges, shares, truth, seconds)]; the first two are of `merging.moments`, truth is
            a list of (name of a class, start, stop).
        classes: the network's; other: the one of these that is no event, or None.
        given: Settings.

    Returns:
        (Settings, Scores of these, Scores of the given ones).
    """
    names = sorted({class_name(name) for name in classes if name != other}
                   | {name for _, _, truth, _ in films for name, _, _ in truth})
    label = {name: i for i, name in enumerate(names)}

    def scores(settings):
        found = Scores(len(names))
        for edges, shares, truth, seconds in films:
            events = merge(edges, shares, classes, other=other, **settings._asdict())
            found.add([(label[name], *span) for name, *span in truth],
                      [(label[class_name(event.label)], event.start, event.stop)
                       for event in events], seconds)
        return found
    tried = [(settings, scores(settings)) for settings in
             [given, *itertools.starmap(Settings, itertools.product(THRESHOLDS, SECONDS, SECONDS))]]
    best, of_best = max(tried, key=lambda one: (
        float(numpy.nan_to_num(numpy.mean([one[1].f1(least) for least in OVERLAPS]))),
        one[1].accuracy()))
    return best, of_best, tried[0][1]


def check_marks(paths):
    """Refuses annotations of which nothing can be read, before hours of work."""
    for path in paths:
        if not read_annotations(path)[0]:
            raise UserError(f'--choose {path}: no mark in it can be read')


def tell_choice(films, tables, annotations, classes, other, given):
    """Says which Settings are best for films that people marked.

    Args:
        films: Films whose `moments` are kept, and `tables` their tables of events as written.
        annotations: files of marks; the others are those of `choose`.

    Returns:
        Lines about films and rows that could not be used.
    """
    known, names, _, problems = compare(tables, annotations, class_name(other or ''))
    by_path = {film_path(str(film.path)): film for film in films}
    by_stem = {film_stem(str(film.path)): film for film in films}
    marked = [(*(by_path.get(one.name) or by_stem[one.name]).moments,
               [(names[label], *span) for label, *span in one.truth], one.seconds)
              for one in known]
    if not marked:
        return ['--choose: no film here is annotated there; films are known by their names',
                *problems]
    best, *scores = choose(marked, classes, other, given)
    print(f'chosen by {len(marked)} annotated films, {scores[0].true.total()} events; report on '
          'others:')
    for settings, found in zip((best, given), scores):
        print(f'{settings.in_words()}{" as given" * (settings is given)}:  F1 '
              + ', '.join(f'{100 * found.f1(least):.1f} at {least}' for least in OVERLAPS)
              + f'; {100 * found.accuracy():.1f} % of frames right')
        if best == given:
            break
    return problems
