"""What stands in a folder of cut clips, and of what film and moment each clip is.

A clip is written down before it is cut, and again when it is in place, so that a run that was
killed never takes half of its work, or that of another film, for what is wanted.
"""
import contextlib
import json
import os

from engine.errors import UserError
from engine.events.films import survey
from engine.files import files_under, read_json, write_text
from engine.progress import Progress
from engine.video.ffmpeg import VideoError, readers

MADE = '.cut.json'


class Made:
    """The clips in a folder, and what is known of the films they come from.

    Raises:
        UserError: the folder holds what was not cut into it.
    """

    def __init__(self, folder):
        self.folder = folder
        known = {} if folder.is_symlink() else read_json(folder / MADE) or {}
        self.films, self.clips = known.get('films', {}), known.get('clips', {})
        foreign = ([folder] if folder.is_symlink() else
                   [path for path in files_under(folder) if self._line(path) not in self.clips]
                   if os.path.lexists(folder) else [])
        if foreign:
            raise UserError(f'{foreign[0]}: already there and not cut by this command; choose '
                            'another --root')

    def _line(self, path):
        return path.relative_to(self.folder).as_posix()

    def has(self, line, source):
        """Whether a clip ("CLASS/NAME.mkv") is in place, or has no frame, and of this source."""
        clip = self.clips.get(line, {})
        return (clip.get('source') == source and clip['count'] is not None
                and (clip['count'] == 0 or (self.folder / line).is_file()))

    def begin(self, sources):
        """Writes down {line: source} of what is to be cut next."""
        self.clips.update({line: {'source': source, 'first': None, 'count': None}
                           for line, source in sources.items()})
        self.write()

    def end(self, frames):
        """Writes down {line: (first frame, how many)} of what is in place."""
        for line, (first, count) in frames.items():
            self.clips[line].update(first=first, count=count)
        self.write()

    def keep(self, lines):
        """Removes all clips but these."""
        for line in set(self.clips) - set(lines):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.folder / line)
            with contextlib.suppress(OSError):  # not empty yet
                os.rmdir((self.folder / line).parent)
            del self.clips[line]
        self.write()

    def write(self):
        write_text(self.folder / MADE, json.dumps({'films': self.films, 'clips': self.clips}))


def measure(films, made, problems):
    """({Film: end in seconds}, {Film: seconds of its frames}) of those that can be read; the
    latter of those alone that were not known yet, and so were decoded."""
    def look(film):
        try:
            return survey(film)
        except VideoError as error:
            return error
    ends, times = {}, {}
    unknown = [film for film in films
               if made.films.get(film.name, {}).get('identity') != film.identity()]
    with readers(2) as pool, Progress(len(unknown), 'looking through', 'films') as progress:
        for film, found in zip(unknown, pool.map(look, unknown)):
            progress.update()
            if isinstance(found, VideoError):
                problems.say(f'{found}; left out')
                continue
            times[film] = found.times
            made.films[film.name] = {'identity': film.identity(), 'end': found.end,
                                     'period': found.end / len(found.times),
                                     'remark': found.remark}
            made.write()
    for film in films:
        about = made.films.get(film.name, {})
        if about.get('identity') == film.identity():
            ends[film] = about['end']
            if about['remark']:
                problems.say(f'{film.path}: {about["remark"]}; clips are cut from what is there')
    return ends, times
