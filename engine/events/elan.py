"""Annotations of ELAN (Wittenburg et al. 2006): .eaf files and tab-delimited exports.

An annotation's value is its class, the tier's name where the value is empty; the tier's
participant is its subject.
"""
import os
import re
import urllib.parse
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from engine.errors import UserError
from engine.events.intervals import Interval, LeftOut, composed, film_path
from engine.events.tables import seconds
from engine.video.ownvideos import VIDEO

MILLISECONDS = 1e-3
# How ELAN's columns of times end, in every language; read the exact ones first.
FORMS = {'ss.msec': 1.0, 'hh:mm:ss.ms': 1.0, 'msec': MILLISECONDS}
CLOCK = r'\d+:\d\d:\d\d[.,]\d{1,3}'


def is_video_name(name):
    return os.path.splitext(name)[1][1:].lower() in VIDEO


class Tiers:
    """Which tiers are wanted (names; None: all), and which of them were in no file yet."""

    def __init__(self, wanted=None):
        self.wanted = wanted and [composed(name) for name in wanted]
        self.unseen = set(self.wanted or ())

    def check(self):
        """Raises UserError where a wanted tier was in no file."""
        if self.unseen:
            raise UserError(f'--tiers {", ".join(sorted(self.unseen))}: in none of the '
                            'annotations')


class _TiersOfFile:
    """Which Tiers a file has."""

    def __init__(self, tiers):
        self.tiers, self.seen = tiers, {}

    def __contains__(self, tier):
        tier = composed(tier)
        self.seen[tier] = None
        self.tiers.unseen.discard(tier)
        return self.tiers.wanted is None or tier in self.tiers.wanted

    def missing(self, path, film):
        """A line where none of the wanted tiers is there."""
        wanted = self.tiers.wanted
        if wanted is None or set(wanted) & self.seen.keys():
            return []
        return [LeftOut(f'{path}: has no tier {", ".join(wanted)}, but '
                        + (', '.join(self.seen) or 'none at all'), film)]


# ------------------------------------------------------------------------------- .eaf

def read_eaf(path, data, tiers):
    """(intervals, problems) of the Tiers of an .eaf file; None where the XML (bytes) is another.

    Nothing outside of the file is read: one that declares a document type is refused.

    Raises:
        UserError: it is no whole XML, or its times are in frames.
    """
    root = _parse(path, data)
    if root.tag != 'ANNOTATION_DOCUMENT':
        return None
    header = root.find('HEADER')
    units = 'milliseconds' if header is None else header.get('TIME_UNITS', 'milliseconds')
    if units != 'milliseconds':
        raise UserError(f'{path}: its times are {units}, not milliseconds; save it anew in ELAN')
    film, origin = _media(path, header)
    slots = {slot.get('TIME_SLOT_ID'): _whole(slot.get('TIME_VALUE'))
             for slot in root.iterfind('TIME_ORDER/TIME_SLOT')}
    spans = _spans(root, slots)
    wanted, intervals, problems = _TiersOfFile(tiers), [], []
    for tier in root.iterfind('TIER'):
        name = tier.get('TIER_ID', '')
        if name not in wanted:
            continue
        for annotation in tier.iterfind('ANNOTATION/*'):
            key = annotation.get('ANNOTATION_ID')
            where = f'{path}: {key} of {name}'
            start, stop = spans[key]
            if None in (start, stop):
                problems.append(LeftOut(f'{where}: its borders have no time of their own', film))
                continue
            value = (annotation.findtext('ANNOTATION_VALUE') or '').strip()
            intervals.append(Interval(film, MILLISECONDS * (start + origin),
                                      MILLISECONDS * (stop + origin), value or name,
                                      tier.get('PARTICIPANT', '').strip(), where))
    return intervals, problems + wanted.missing(path, film)


def _parse(path, data):
    def refuse(*_):
        raise UserError(f'{path}: declares a document type, which no .eaf file does; not read')
    try:
        reader = expat.ParserCreate()
        reader.StartDoctypeDeclHandler = refuse
        reader.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f'{path}: no whole XML ({error})') from None


def _media(path, header):
    """(name of the first film that a header names, where the annotations' time 0 is in it, ms);
    the file's own name where none is."""
    for media in [] if header is None else header.iterfind('MEDIA_DESCRIPTOR'):
        for key in ('MEDIA_URL', 'RELATIVE_MEDIA_URL'):
            name = urllib.parse.unquote(media.get(key, '').removeprefix('file:'))
            if is_video_name(name) or media.get('MIME_TYPE', '').startswith('video/') and name:
                # file:///C:/films/a.mp4
                name = re.sub(r'^/*(?=[A-Za-z]:)', '', name)
                return re.sub('^//+', '/', name), _whole(media.get('TIME_ORIGIN')) or 0
    return path.stem, 0


def _spans(root, slots):
    """{annotation id: (start, stop)}, ms; one that refers to another has that one's."""
    spans, refer = {}, {}
    for annotation in root.iterfind('TIER/ANNOTATION/*'):
        key = annotation.get('ANNOTATION_ID')
        if annotation.get('ANNOTATION_REF') is None:
            spans[key] = tuple(slots.get(annotation.get(f'TIME_SLOT_REF{i}')) for i in (1, 2))
        else:
            refer[key] = annotation.get('ANNOTATION_REF')
    for key in refer:
        chain = {}
        while key in refer and key not in spans and key not in chain:
            chain[key] = None
            key = refer[key]
        spans.update(dict.fromkeys(chain, spans.get(key, (None, None))))
    return spans


def _whole(text):
    return int(text) if re.fullmatch(r'-?\d{1,15}', text or '') else None


# --------------------------------------------------------------- tab-delimited exports

class _Places(NamedTuple):
    """Where things stand in a line: the columns of begin and end, the seconds of their units, the
    columns of the tier's name, its participant and the film, -1 where there are none, and {column
    of values: its tier, None where the tier stands in the line}."""
    begin: int
    end: int
    units: tuple
    tier: int
    subject: int
    film: int
    values: dict


def read_tabs(path, lines, tiers):
    """(intervals, problems) of the Tiers of a tab-delimited export; None where it is none.

    With a line of columns' names, whatever language they are in, or without: then the times
    must be among the columns as hh:mm:ss.ms.
    """
    film = next((name for _, cells in lines if cells[0].startswith('#')
                 if (name := _film_in(' '.join(cells)))), path.stem)
    lines = [(number, cells) for number, cells in lines if not cells[0].startswith('#')]
    places = _by_names(lines[0][1]) if lines else None
    if places:
        del lines[0]
    elif not lines or not (places := _by_times(lines[0][1])):
        return None
    wanted, intervals, problems = _TiersOfFile(tiers), [], []
    for number, cells in lines:
        where = f'{path}:{number}'
        cells = cells + [''] * (max(places[:2]) + 1 - len(cells))
        tier, subject, own = (cells[i] if 0 <= i < len(cells) else '' for i in
                              (places.tier, places.subject, places.film))
        name = own.removesuffix('.eaf') or film
        for column, of in places.values.items():
            value = cells[column] if column < len(cells) else ''
            if (of or tier) not in wanted or of and not value:
                continue
            try:
                begin, end = (unit * seconds(cells[i]) for i, unit in zip(places, places.units))
            except ValueError as error:
                problems.append(LeftOut(f'{where}: "{error}" is no time', name))
                break
            intervals.append(Interval(name, begin, end, value or tier, subject, where))
    return intervals, problems + wanted.missing(path, film)


def _film_in(text):
    """The film that a comment line names: "#file:///C:/films/a.mp4 -- offset: 0"."""
    ending = re.compile(rf'\.(?:{"|".join(VIDEO)})(?=\W|$)', re.I)
    for piece in re.split('[/"#]', film_path(text)):
        if found := ending.search(piece, 1):
            return piece[:found.end()].strip()
    return ''


def _by_names(cells):
    """The _Places by a line of columns' names; None where it is none."""
    names, times = [cell.lower() for cell in cells], {}
    for i, name in enumerate(names):
        prefix, _, form = name.rpartition(' - ')
        if prefix and form in FORMS:
            times.setdefault(prefix, {})[form] = i
    ends = [forms for prefix, forms in times.items() if prefix != 'duration'][:2]
    if len(ends) < 2:
        return None
    forms = [next(form for form in FORMS if form in of) for of in ends]
    columns = {i for of in times.values() for i in of.values()}
    before = [i for i in range(min(columns)) if names[i] not in ('file name', 'file path')]
    after = [i for i in range(min(columns), len(names)) if i not in columns]
    file = next((names.index(name) for name in ('file name', 'file path') if name in names), -1)
    after = [i for i in after if names[i] not in ('file name', 'file path')]
    values = {i: None for i in after[:1]} if before else {i: cells[i] for i in after}
    return values and _Places(ends[0][forms[0]], ends[1][forms[1]],
                              tuple(FORMS[form] for form in forms), *(before + [-1, -1])[:2],
                              file, values)


def _by_times(cells):
    """The _Places by how a line looks: tier, participant, begin, end, duration, value."""
    clocks = [i for i, cell in enumerate(cells) if re.fullmatch(CLOCK, cell)]
    if len(clocks) not in (2, 3) or clocks[-1] == len(cells) - 1:
        return None
    times = [seconds(cells[i]) for i in clocks]
    if len(times) == 3 and abs(times[1] - times[0] - times[2]) > 0.002:
        return None
    before = [*range(clocks[0]), -1, -1]
    return _Places(*clocks[:2], (1.0, 1.0), *before[:2], -1, {len(cells) - 1: None})
