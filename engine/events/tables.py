"""Tables as annotation programs write them: which marks stand between cells, how times look."""
import csv
import math
import re
from typing import NamedTuple


class Row(NamedTuple):
    """A line of a table: its number in the file, from 1, and {column: cell}."""
    number: int
    cells: dict


def lines_of(text):
    """[(line number, [cell])] of all lines with something in them, without blanks around cells.

    Raises:
        csv.Error: it is no table.
    """
    lines = text.replace('\r\n', '\n').replace('\r', '\n').split('\n')
    # The mark that the most lines have; of equal ones the first: commas may be decimal ones.
    having = {mark: sum(mark in line for line in lines[:100]) for mark in '\t;,'}
    mark = max(having, key=having.get)
    found, joined = _read(lines, mark, csv.QUOTE_MINIMAL)
    if joined and mark == '\t':  # ELAN knows no quotes: one alone would swallow lines
        found, _ = _read(lines, mark, csv.QUOTE_NONE)
    return found


def _read(lines, mark, quoting):
    """([(line number, [cell])], whether a row took several lines)."""
    reader = csv.reader(lines, delimiter=mark, quoting=quoting)
    found, number, joined = [], 1, False
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            found.append((number, cells))
        joined |= reader.line_num > number
        number = reader.line_num + 1
    return found, joined


def rows_below(lines, heading):
    """The Rows below the heading, which is lines[heading]; columns' names in lower case."""
    names = [cell.lower() for cell in lines[heading][1]]
    return [Row(number, dict(zip(names, cells + [''] * (len(names) - len(cells)))))
            for number, cells in lines[heading + 1:]]


def seconds(text):
    """Seconds in a cell: 12.5, 12,5, 1:02.5 or 00:01:02.500.

    Raises:
        ValueError: it is no time.
    """
    found = re.fullmatch(r'(-?)(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?(?:[eE][-+]?\d+)?)', text)
    if not found:
        raise ValueError(text)
    sign, hours, minutes, rest = found.groups()
    value = 3600 * float(hours or 0) + 60 * float(minutes or 0) + float(rest.replace(',', '.'))
    if not math.isfinite(value):
        raise ValueError(text)
    return -value if sign else value
