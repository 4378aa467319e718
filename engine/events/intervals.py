"""What one mark of an annotation says: this, in that film, from here to there."""
import os
import unicodedata
from typing import NamedTuple

from engine.video.ownvideos import VIDEO, clean, short


class Interval(NamedTuple):
    """A stretch of a film that shows one thing.

    `film` stands as it was written, with folders of whatever machine; `start` and `stop` are
    seconds from the film's first frame on, start < stop; `subject` is '' where nobody is named;
    `where` is FILE:ROW, for messages; `lasts` how long the film is by whoever marked it, seconds,
    0.0 where that is not said.
    """
    film: str
    start: float
    stop: float
    label: str
    subject: str = ''
    where: str = ''
    lasts: float = 0.0


def film_path(name):
    """A film's name with / between folders, and one way to write an accent."""
    return unicodedata.normalize('NFC', name.strip()).replace('\\', '/').removeprefix('./')


def film_stem(name):
    """A film's name as films of several machines are compared: no folders, no video's ending."""
    last = film_path(name).rpartition('/')[2]
    stem, ending = os.path.splitext(last)
    return stem if ending[1:].lower() in VIDEO else last


def class_name(label):
    """What the class is called of what was marked so: folders and lists can hold it, no hidden
    one, no path."""
    return short(clean(unicodedata.normalize('NFC', label)).lstrip('.') or '_')
