"""A folder of class folders of videos: which there are and what they are called.

Layouts: CLASS/clip.mp4, with folders between or not; SIDE/CLASS/clip.mp4, where the sides of a
split (train, test ...) stand above the classes; CLASS/clip/0001.jpg, a folder of pictures a clip.
"""
import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.files import files_under, why_no_file
from engine.variants import why_no_name

# Files whose names end otherwise are no clips: ffmpeg reads pictures and even texts as videos.
VIDEO = set('264 265 360 3g2 3gp 3gp2 3gpp amv asf av1 avc avi avs2 dav divx dv dvr-ms f4p f4v flv '
            'gif h261 h263 h264 h265 hevc insv ismv ivf lrv m1v m2p m2t m2ts m2v m4v mjpeg mjpg '
            'mk3d mkv mod mov mp2v mp4 mp4v mpe mpeg mpg mpv mts mxf nut obu ogg ogm ogv ogx qt rm '
            'rmvb tod tp trp ts vob webm wmv wtv xvid y4m'.split())
PICTURE = set('bmp jpeg jpg png ppm tif tiff webp'.split())
# What is written of a clip adds about 20 bytes to its name, of the 255 that file systems take.
MOST_BYTES = 220
# Names of folders that are sides of a split, not classes.
SIDE = (r'(?i)(train|val|valid|validation|test|dev|eval)(ing)?'
        r'([ _.-]?(set|data|split|clips|videos))?')


class Video(NamedTuple):
    """A file, or a folder of pictures: its place below the folder of clips and below its class
    folder, and what it is called under the root."""
    path: Path
    relative: str
    inner: str
    class_name: str
    name: str

    @property
    def of_pictures(self):
        return self.path.suffix[1:].lower() not in VIDEO

    def line(self):
        return f'{self.class_name}/{self.name}{".mkv" if self.of_pictures else self.path.suffix}'

    def side(self):
        """The folder above its class folder; '' where there is none."""
        return self.relative.removesuffix(self.inner).rstrip('/').rpartition('/')[0]


# --------------------------------------------------------------------- what is there

def clean(name):
    """A name that lists and HDF5 can hold: '_' for blanks and what is no character."""
    name = name.encode('utf-8', 'replace').decode()
    return re.sub(r'[\s\x00-\x1f\x7f-\x9f/]+', '_', name)


def is_video(path):
    return path.suffix[1:].lower() in VIDEO


def in_order(classes):
    """Sorts the names of classes: by number where all begin with one, 2 before 10."""
    if all(re.match('[0-9]', name) for name in classes):
        return sorted(classes, key=lambda name: (int(re.match('[0-9]+', name)[0]), name))
    return sorted(classes)


def _folders(folder):
    try:
        return sorted(path for path in folder.iterdir()
                      if os.path.isdir(path) and not path.name.startswith('.'))
    except OSError as error:
        raise UserError(f'{folder}: no folder of clips ({error.strerror})') from None


def sides_above(folder):
    """(names of the folders that have the same class folders below them, whether their names say
    that they are sides of a split); no names where the folders are not like that."""
    tops = _folders(folder)
    below = [{path.name.lower() for path in _folders(top)} for top in tops]
    repeated = set.intersection(*below) if len(tops) in (2, 3, 4) else set()
    if not repeated or any(2 * len(repeated) < len(names) for names in below) or any(
            os.path.isfile(path) and is_video(path) for top in tops for path in top.iterdir()):
        return [], False
    return ([top.name for top in tops],
            all(re.fullmatch(SIDE, top.name) for top in tops))


def find_videos(folder, sided=False, pictures=False):
    """The videos below each class folder, sorted; prints which other files are passed over.

    Args:
        sided: the class folders stand one folder deeper, below the sides of a split.
        pictures: a folder of pictures counts as a video.

    Returns:
        (list of Video, lines that name each video and folder that cannot be read).
    """
    tops = _folders(folder) if sided else [folder]
    class_folders = [path for top in tops for path in _folders(top)]
    outside = [path for top in {folder, *tops} for path in sorted(top.iterdir())
               if os.path.isfile(path)]
    spelled, found, others, wrong, holds = {}, [], [], [], Counter()
    for class_folder in class_folders:
        class_name = clean(class_folder.name)
        if reason := why_no_name(class_name):
            raise UserError(f'{class_folder}: {reason}; rename the folder')
        first = spelled.setdefault(class_name.lower(), class_folder)
        if first != class_folder and (not sided or first.name != class_folder.name):
            raise UserError(f'{class_folder}: taken for the same class as {first}; rename one, or '
                            'join them')
        files = files_under(class_folder, lambda *why: wrong.append(': '.join(map(str, why))))
        videos, rest = _videos_of(class_folder, files, pictures)
        others += rest
        holds[class_name] += len(videos)
        for path in videos:
            reason = '' if os.path.isdir(path) else why_no_file(path)
            if reason:
                wrong.append(f'{path}: {reason}')
            else:
                found.append((path, class_folder, class_name))
    _say_passed_over(folder, others, outside)
    if len(holds) < 2:
        raise UserError(f'{folder}: holds {len(holds)} class folders, but two at least are '
                        'needed: DIR/Class/clip.mp4')
    left = {class_name for _, _, class_name in found}
    for class_folder in class_folders:
        if clean(class_folder.name) not in left:
            raise UserError(f'{class_folder}: a class without a video'
                            + (f' that can be read, {wrong[0]}' if wrong else '')
                            + (meant_below(folder) or '; move the folder elsewhere, or give its '
                               'files the ending of their kind'))
    return named(folder, found), wrong


def meant_below(folder):
    """What to say where one of the folders in a folder holds folders of videos; '' if none."""
    for inner in _folders(folder):
        holding = [path for path in _folders(inner) if any(map(is_video, files_under(path)))]
        if len(holding) > 1:
            return f'; if the classes are the folders in {inner}, give --clips {inner}'
    return ''


def _videos_of(class_folder, files, pictures):
    """(videos, other files) of a class folder; folders of pictures among the videos if asked."""
    videos = [path for path in files if is_video(path)]
    others = [path for path in files if not is_video(path)]
    if not pictures:
        return videos, others
    holding = {path.parent for path in others if path.suffix[1:].lower() in PICTURE}
    clips = holding - {class_folder} - {path.parent for path in videos}
    return (sorted(videos + list(clips)),
            [path for path in others if path.parent not in clips])


def _say_passed_over(folder, others, outside):
    """Says which files are no clips, by their kinds."""
    stray = [path for path in outside if is_video(path)]
    if stray:
        print(f'{len(stray)} videos stand outside the class folders and are passed over, '
              f'{stray[0]} first')
    others = others + [path for path in outside if not is_video(path)]
    if others:
        kinds = Counter(path.suffix.lower() or 'without an ending' for path in others)
        print(f'passed over {len(others)} files that are no videos by their names: '
              + ', '.join(f'{n} {kind}' for kind, n in kinds.most_common(8))
              + f'; {others[0]} first')
    clips = {path.parent for path in others if path.suffix[1:].lower() in PICTURE}
    if clips - {folder}:
        print(f'{len(clips)} folders of pictures, {min(clips)} first: --pictures 25 takes each as '
              'a clip of 25 pictures a second')


def named(folder, found):
    """Gives each (path, class folder, class name) its name: the file's; where others have it too
    its folders' before it, and where that is not enough its ending behind it, and of a name that
    is no UTF-8 a digest."""
    relative = [path.relative_to(folder).as_posix() for path, _, _ in found]
    stems = [clean(path.name if path.is_dir() else path.stem) for path, _, _ in found]
    times = Counter(stems)
    names = [stem if times[stem] == 1 else
             clean((text if path.is_dir() else os.path.splitext(text)[0]).replace('/', '_'))
             for stem, text, (path, _, _) in zip(stems, relative, found)]
    longer = sum(times[stem] > 1 for stem in stems)
    if longer:
        print(f'{longer} clips have a name that others have too and get their folders\' before it')
    times = Counter(names)
    names = [name if times[name] == 1 else clean(text.replace('/', '_').replace('.', '_'))
             for name, text in zip(names, relative)]
    # bytes that are no letters all became the same sign
    times = Counter(names)
    names = [short(name + f'_{_digest(os.fsencode(text))}' * (
        times[name] > 1 and re.search('[\udc80-\udcff]', text) is not None))
        for name, text in zip(names, relative)]
    first = {}
    for text, name in zip(relative, names):
        if name in first:
            raise UserError(f'{folder}: {first[name]} and {text} would have one name, {name}; '
                            'if they show the same, remove one, else rename it')
        first[name] = text
    cut = [text for text, name in zip(relative, names) if len(os.fsencode(name)) == MOST_BYTES]
    if cut:
        print(f'{len(cut)} names are too long for what is made of them and are cut, '
              f'{cut[0][:60]}... first')
    return [Video(path, text, path.relative_to(class_folder).as_posix(), class_name, name)
            for (path, class_folder, class_name), text, name in zip(found, relative, names)]


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:8]


def short(name):
    """A name of at most MOST_BYTES; what is cut gives way to a digest of all of it."""
    data = name.encode()
    if len(data) <= MOST_BYTES:
        return name
    digest = '_' + _digest(data)
    kept = data[:MOST_BYTES - len(digest)].decode(errors='ignore')
    return kept + '_' * (MOST_BYTES - len(digest) - len(kept.encode())) + digest
