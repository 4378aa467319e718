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
    """[(line number, [cell])] of all lines with something in them, without blanks around cells."""
    lines = text.splitlines()
    head = next((line for line in lines if line.strip()), '')
    mark = next((mark for mark in '\t;' if mark in head), ',')
    reader = csv.reader(lines, delimiter=mark)
    found, number = [], 1
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            found.append((number, cells))
        number = reader.line_num + 1
    return found


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
    value = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(rest.replace(',', '.'))
    if not math.isfinite(value):
        raise ValueError(text)
    return -value if sign else value
