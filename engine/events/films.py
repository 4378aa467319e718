"""The films that annotations speak of: which of those given a name means, how long each lasts."""
import os
from collections import Counter, defaultdict
from typing import NamedTuple

from engine.errors import UserError
from engine.events.intervals import film_path, film_stem
from engine.video.decode import Frames
from engine.video.ownvideos import clean, short
from engine.video.sliding import moment


class Film(NamedTuple):
    """A film: its file, and the name that its clips and its group begin with."""
    path: os.PathLike
    name: str

    def identity(self):
        """[bytes, date of change]: another film under the same name has another one."""
        status = os.stat(self.path)
        return [status.st_size, status.st_mtime_ns]


def films_of(paths):
    """The Films of these files, each file once; where names repeat, folders stand before them.

    Raises:
        UserError: two films would still have one name.
    """
    paths = list({os.path.realpath(path): path for path in paths}.values())
    above = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths] or ['/'])
    relative = [os.path.relpath(os.path.abspath(path), above) for path in paths]
    names = [clean(film_stem(path)) for path in relative]
    for longer in (lambda path: os.path.splitext(path)[0], lambda path: path.replace('.', '_')):
        times = Counter(names)
        names = [name if times[name] == 1 else clean(longer(path).replace(os.sep, '_'))
                 for name, path in zip(names, relative)]
    first = {}
    for path, name in zip(paths, map(short, names)):
        if name in first:
            raise UserError(f'{path}: its clips would be called as those of {first[name]}, '
                            f'{name}; rename one of the films')
        first[name] = path
    return [Film(path, name) for name, path in first.items()]


class Known:
    """Films, found by what annotations call them."""

    def __init__(self, films):
        self.by_stem = defaultdict(list)
        for film in films:
            self.by_stem[film_stem(str(film.path)).lower()].append(film)

    def meant_by(self, name):
        """The films that fit a name best: none, one, or several where it does not tell.

        The name counts without its ending and without folders; where several films fit, the one
        whose ending, folders and capitals agree best.
        """
        def agreement(film):
            here = film_path(os.path.abspath(film.path)).split('/')
            there = film_path(name).split('/')
            folders = 0
            for one, other in zip(here[-2::-1], there[-2::-1]):
                if one != other:
                    break
                folders += 1
            return (film_stem(here[-1]) == film_stem(there[-1]), folders,
                    here[-1] == there[-1])
        fitting = self.by_stem.get(film_stem(name).lower(), [])
        best = max(map(agreement, fitting), default=None)
        return [film for film in fitting if agreement(film) == best]


class Survey(NamedTuple):
    """What one reading of a film tells: when each frame is shown, when the last one ends,
    seconds; and what is wrong with it, '' if nothing."""
    times: list
    end: float
    remark: str


def survey(film):
    """The Survey of a Film, by decoding all of it.

    Raises:
        VideoError: it gives no frame.
    """
    frames = Frames(film.path, 2, batch=256, timed=True)
    for _ in frames:
        pass
    remark = frames.remark and f'{frames.remark.kind}, {frames.remark.reason}'
    return Survey(frames.times, moment(frames.times, len(frames.times)), remark or '')
