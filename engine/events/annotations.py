"""Reading annotations, whichever program wrote them; the format is told by the content."""
import csv
from pathlib import Path

from engine.errors import UserError
from engine.events.boris import read_boris
from engine.events.elan import Tiers, read_eaf, read_tabs
from engine.events.intervals import Interval, LeftOut
from engine.events.tables import lines_of, rows_below, seconds
from engine.video.groups import read_table

# What the columns of a plain table may be called; the first is ours.
PLAIN = {'film': ('film', 'file', 'video', 'filename', 'file name'),
         'start': ('start', 'begin', 'start (s)', 'start_time'),
         'stop': ('stop', 'end', 'stop (s)', 'end (s)', 'end_time'),
         'label': ('class', 'label', 'action', 'behavior', 'behaviour'), 'subject': ('subject',)}
# Annotations of many hours take less; more is something else.
MOST_BYTES = 1 << 26
WITHOUT_HEADING = ['film', 'start', 'stop', 'class', 'subject']


class OfNothing(str):
    """A line about a row that marks no moment at all; of all others a film may show something
    that no interval tells."""


def read_annotations(path, *, tiers=None, around=None):
    """Reads one file of annotations.

    Args:
        path: a plain table (film, start, stop, class and perhaps subject; predict.py's
            events.csv is one), tabular or aggregated events of BORIS, an .eaf of ELAN or its
            tab-delimited export; in UTF-8, UTF-16 or Windows-1252, with tabs, ; or , between
            cells.
        tiers: the Tiers to read, or their names, of a file that has tiers; None reads all.
        around (float): makes an interval of a point event: so many seconds before and behind it.

    Returns:
        (list of Interval in the order of the file, list of lines that each name a row and why
        it is left out: OfNothing, or LeftOut where its film is known).

    Raises:
        UserError: the file cannot be read, or is nothing that is known here.
    """
    path = Path(path)
    found = _read(path, tiers if isinstance(tiers, Tiers) else Tiers(tiers), around)
    if found is None:
        raise UserError(f'{path}: not known as annotations; a plain table has the columns film, '
                        'start, stop, class in its first line, and BORIS and ELAN write theirs '
                        'with the names of the columns')
    intervals, problems = found
    for interval in intervals:
        if not interval.start < interval.stop:
            line = (f'{interval.where}: stops at {interval.stop:g} s, which is not after its '
                    f'start at {interval.start:g} s')
            problems.append(OfNothing(line) if interval.start == interval.stop else
                            LeftOut(line, interval.film))
    return [interval for interval in intervals if interval.start < interval.stop], problems


def _read(path, tiers, around):
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f'{path}: {size / 1e6:.0f} MB are too many for annotations')
        with open(path, 'rb') as f:
            start = f.read(64)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from None
    if start.replace(b'\0', b'').lstrip(b'\xef\xbb\xbf\xff\xfe \t\r\n').startswith(b'<'):
        return read_eaf(path, path.read_bytes(), tiers)
    try:
        lines = lines_of(read_table(path))
    except csv.Error as error:
        raise UserError(f'{path}: no table ({error})') from None
    for reader in (_read_plain, lambda *known: read_boris(*known, around),
                   lambda *known: read_tabs(*known, tiers)):
        found = reader(path, lines)
        if found is not None:
            return found
    return None


def _read_plain(path, lines):
    """(intervals, problems) of a plain table; None where it is none."""
    if lines and _is_bare(lines[0][1]):
        lines = [(0, WITHOUT_HEADING), *lines]
    names = [cell.lower() for cell in lines[0][1]] if lines else []
    columns = {field: next((name for name in known if name in names), None)
               for field, known in PLAIN.items()}
    if None in [columns[field] for field in ('film', 'start', 'stop', 'label')]:
        return None
    intervals, problems = [], []
    for number, cells in rows_below(lines, 0):
        row = {field: cells.get(name, '') for field, name in columns.items()}
        where = f'{path}:{number}'
        missing = [columns[field] for field in ('film', 'label') if not row[field]]
        if missing:
            problems.append(LeftOut(f'{where}: no {missing[0]}', *filter(None, [row['film']])))
            continue
        try:
            start, stop = seconds(row['start']), seconds(row['stop'])
        except ValueError as error:
            problems.append(LeftOut(f'{where}: "{error}" is no time', row['film']))
            continue
        intervals.append(Interval(row['film'], start, stop, row['label'], row['subject'], where))
    return intervals, problems


def _is_bare(cells):
    """Whether the first line of a table is no heading but film, start, stop, class."""
    try:
        return len(cells) in (4, 5) and seconds(cells[1]) <= seconds(cells[2])
    except ValueError:
        return False
