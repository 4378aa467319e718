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


class LeftOut(str):
    """A line about what was left out, and the films that it may speak of, by their names in the
    annotations; none: that is not known."""

    def __new__(cls, line, *films):
        self = super().__new__(cls, line)
        self.films = films
        return self


def composed(text):
    """A text with one way to write an accent (NFC)."""
    return unicodedata.normalize('NFC', text)


def film_path(name):
    """A film's name with / between folders, and one way to write an accent."""
    return composed(name.strip()).replace('\\', '/').removeprefix('./')


def film_stem(name):
    """A film's name as films of several machines are compared: no folders, no video's ending."""
    last = film_path(name).rpartition('/')[2]
    stem, ending = os.path.splitext(last)
    return stem if ending[1:].lower() in VIDEO else last


def class_name(label):
    """What the class is called of what was marked so: folders and lists can hold it, no hidden
    one, no path."""
    return short(clean(composed(label)).lstrip('.') or '_')
