"""What BORIS exports of its observations (Friard & Gamba 2016): tabular and aggregated events.

Tabular events stand a row each: STARTs and STOPs, which are paired here, and POINTs. Aggregated
ones are intervals already. Both have changed their columns over the years: older tables stand
below a few lines about the observation and name one film a row; newer ones name all films of
the observation, with their lengths. Films of one player follow each other, and times count from
the first one's begin on.
"""
import math
from collections import defaultdict
from typing import NamedTuple

from engine.events.intervals import Interval, LeftOut, film_stem
from engine.events.tables import rows_below, seconds

OFFSET = 'time offset (s)'  # BORIS has added it to all times
NOBODY = 'no focal subject'
NO_FILM = ('', 'na', 'live', 'not found')


class _Event(NamedTuple):
    """A moment of a film: index of the film in the observation, its name, its seconds (0.0: not
    said), the moment in it, what begins, ends or happens, whose it is, and its row."""
    index: int
    film: str
    lasts: float
    moment: float
    label: str
    subject: str
    number: int


def read_boris(path, lines, around=None):
    """(intervals, problems) of a table of BORIS; None where it is none.

    Args:
        path: for the lines about what is wrong.
        lines: from engine.events.tables.lines_of.
        around (float): seconds before and behind a point event that make an interval of it.
    """
    for heading, (_, cells) in enumerate(lines):
        names = {cell.lower() for cell in cells}
        tabular = {'behavior', 'time'} <= names and bool({'status', 'behavior type'} & names)
        if tabular or {'behavior', 'start (s)', 'stop (s)'} <= names:
            break
    else:
        return None
    above = [cells for _, cells in lines[:heading] if len(cells) > 1]
    rows = rows_below(lines, heading)
    films = defaultdict(set)
    for row in rows:
        stems = {film_stem(name) for name, _ in _films_of(row.cells)}
        films[row.cells.get('observation id')] |= stems
    films[None] |= {film_stem(cells[1]) for cells in above if cells[0].lower() == 'player #1'}
    offset = next((cells[1] for cells in above if cells[0].lower() == OFFSET), '')
    reader = _Reader(path, around, offset, {of for of, names in films.items() if len(names) > 1})
    if tabular:
        reader.pair(rows)
    else:
        reader.take(rows)
    reader.say_points()
    return reader.intervals, reader.problems


class _Reader:
    """Collects the intervals of a table, and what is wrong in it.

    Args:
        path, around: as in read_boris.
        offset: what was added to all times, as it stands above an older table.
        joined: ids of the observations of several films.
    """

    def __init__(self, path, around, offset, joined):
        self.path, self.around, self.offset, self.joined = path, around, offset, joined
        self.intervals, self.problems, self.points = [], [], []

    def where(self, number):
        return f'{self.path}:{number}'

    def wrong(self, number, reason, *films):
        self.problems.append(LeftOut(f'{self.where(number)}: {reason}', *films))

    # ---------------------------------------------------------------- tabular events

    def pair(self, rows):
        """Takes in a table of START, STOP and POINT events."""
        timed = []
        for row in rows:
            event = self.event(row, row.cells['time'])
            if event:
                timed.append((event, row.cells))
        order = sorted(timed, key=lambda pair: (pair[0].index, pair[0].moment))
        begun = {}
        for event, cells in order:
            status = (cells.get('status') or cells.get('behavior type', '')).upper()
            key = (cells.get('observation id'), event.subject, event.label,
                   *(cell for name, cell in cells.items() if name.startswith('modifier')))
            if status == 'START':
                if key in begun:
                    self.wrong(begun[key].number, f'START of {event.label} without a STOP before '
                               f'its next START in row {event.number}', event.film)
                begun[key] = event
            elif status == 'STOP':
                if key in begun:
                    self.join(begun.pop(key), event)
                else:
                    self.wrong(event.number, f'STOP of {event.label} without a START', event.film)
            elif status == 'POINT':
                self.point(event)
            else:
                self.wrong(event.number, f'neither START, STOP nor POINT but "{status}"',
                           event.film)
        for event in begun.values():
            self.wrong(event.number, f'START of {event.label} without a STOP', event.film)

    # ------------------------------------------------------------- aggregated events

    def take(self, rows):
        """Takes in a table of intervals."""
        for row in rows:
            if row.cells.get('behavior type', '').upper() == 'POINT':
                event = self.event(row, row.cells['start (s)'])
                if event:
                    self.point(event)
                continue
            start = self.event(row, row.cells['start (s)'])
            stop = start and self.event(row, row.cells['stop (s)'])
            if stop:
                self.join(start, stop)

    # ------------------------------------------------------------------- both

    def event(self, row, text):
        """The _Event of a row at a time; None, and a line about it, where there is none."""
        cells = row.cells
        films = _films_of(cells)
        names = [name for name, _ in films]
        try:
            moment = seconds(text) - seconds(cells.get(OFFSET) or self.offset or '0')
        except ValueError as error:
            return self.wrong(row.number, f'"{error}" is no time', *names)
        if not cells['behavior']:
            return self.wrong(row.number, 'no behavior', *names)
        if not films:
            return self.wrong(row.number, 'names no film: a live observation, or one of pictures')
        known = len(films) > 1 and all(lasts for _, lasts in films)
        if not known and (len(films) > 1 or cells.get('observation id') in self.joined):
            return self.wrong(row.number, 'films of one observation follow each other, and their '
                              'lengths do not stand here; export it again with a newer BORIS, or '
                              'give each film an observation of its own', *names)
        index = 0
        while index + 1 < len(films) and moment >= films[index][1]:
            moment -= films[index][1]
            index += 1
        name, lasts = films[index]
        subject = cells.get('subject', '')
        return _Event(index, name, lasts, moment, cells['behavior'],
                      '' if subject.lower() == NOBODY else subject, row.number)

    def join(self, start, stop):
        if (start.index, start.film) != (stop.index, stop.film):
            self.wrong(start.number, f'{start.label} begins in {start.film} and ends in '
                                     f'{stop.film}', start.film, stop.film)
            return
        self.intervals.append(Interval(start.film, start.moment, stop.moment, start.label,
                                       start.subject, self.where(start.number), start.lasts))

    def point(self, event):
        if self.around is None:
            self.points.append(event)
        else:
            self.intervals.append(Interval(
                event.film, max(0.0, event.moment - self.around),
                min(event.lasts or math.inf, event.moment + self.around),
                event.label, event.subject, self.where(event.number), event.lasts))

    def say_points(self):
        if self.points:
            self.wrong(self.points[0].number, f'{len(self.points)} point events, here the first, '
                       'are left out: they have no length; --around SECONDS gives them one',
                       *{event.film for event in self.points})


def _films_of(cells):
    """[(name, seconds or 0.0)] of the films that follow each other, of the first player."""
    source = cells.get('source', '').partition('player #2')[0].strip().removesuffix('|')
    names = [name.strip() for name in source.removeprefix('player #1:').split(';')]
    names = [name for name in names if name.lower() not in NO_FILM]
    lengths = cells.get('media duration (s)', '').partition('|')[0].split(';')
    if len(names) < 2:
        one = next((cells[name] for name in ('media file name', 'media file path', 'media file')
                    if cells.get(name, '').lower() not in NO_FILM), '')
        names = names or ([one] if one else [])
        if not any(lengths):
            lengths = [cells.get('total length', '')]
    if len(lengths) != len(names):
        lengths = [''] * len(names)
    return [(name, _length(text)) for name, text in zip(names, lengths)]


def _length(text):
    try:
        return seconds(text.strip())
    except ValueError:
        return 0.0
