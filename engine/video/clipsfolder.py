"""The folder of clips under a root, laid out of links to videos that stay where they are."""
import errno
import json
import os
import shlex
import shutil

from engine import variants
from engine.errors import UserError
from engine.files import files_under, put, read_json
from engine.video.ffmpeg import VideoError
from engine.video.picturefolders import make_video, pictures_of

# What is no link there, and what it was made of: {place: [source, files, bytes, date, rate]}.
MADE = '.made.json'
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def made_with_lists(root):
    """Files and folders under a root of networks that have learned from its lists, and what is
    told of them: figures on other lists would be taken together with new ones."""
    patterns = ('*.model', 'frameTraining*', '*.training', '*.hdf5', variants.FEATURES + '*',
                variants.FRAME_PREDICTIONS + '*', variants.RESULTS)
    return sorted(path for pattern in patterns for path in root.glob(pattern)
                  if path.name != variants.VGG_MODEL)


def check_unused(root, lists):
    """Refuses new lists where networks have learned from the old ones."""
    used = made_with_lists(root)
    if used:
        raise UserError(
            f'{lists}: holds other lists, and networks made with them have seen what these would '
            'test; choose another --root, or begin anew here: rm -r '
            + ' '.join(shlex.quote(str(path)) for path in used) + ', then this command again')


def place_clips(root, videos, rate=None):
    """Makes ROOT/UCF-101 of links to the videos; of copies where there can be no links.

    Args:
        videos: list of ownvideos.Video.
        rate: pictures a second of those that are folders of pictures.

    Raises:
        UserError: something else stands there, or it cannot be written.
    """
    folder = root / variants.CLIPS
    if os.path.lexists(folder) and _is_placed(folder, videos, rate):
        return
    part = root / f'.{variants.CLIPS}.part'
    shutil.rmtree(part, ignore_errors=True)
    try:
        _fill(part, videos, rate)
        if os.path.lexists(folder):
            shutil.rmtree(folder)
        put(part, folder)
    except OSError as error:
        raise UserError(f'{error.filename2 or error.filename or folder}: {error.strerror}; check '
                        'space and rights there') from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_placed(folder, videos, rate):
    """Whether a folder holds the videos already, and nothing else.

    Raises:
        UserError: what stands there was not made by place_clips.
    """
    refusal = UserError(f'{folder}: already there and not made of links to --clips; choose '
                        'another --root')
    if folder.is_symlink():
        raise refusal
    made = read_json(folder / MADE) or {}
    there = {path.relative_to(folder).as_posix(): path for path in files_under(folder)}
    if any(not path.is_symlink() and line not in made for line, path in there.items()):
        raise refusal
    wanted = {video.line(): video for video in videos}
    return there.keys() == wanted.keys() and all(
        os.readlink(path) == str(wanted[line].path.resolve()) if path.is_symlink()
        else made[line] == _source(wanted[line], rate) for line, path in there.items())


def _source(video, rate):
    """What tells whether a copy, or a video made of pictures, is still that of its source."""
    files = [path.stat() for path in (pictures_of(video.path) if video.of_pictures
                                      else [video.path])]
    return [str(video.path.resolve()), len(files), sum(file.st_size for file in files),
            max(file.st_mtime for file in files), rate if video.of_pictures else None]


def _fill(folder, videos, rate):
    folder.mkdir(parents=True)
    linked, made, wrong = _takes_links(folder), {}, []
    if not linked:
        size = sum(video.path.stat().st_size for video in videos if not video.of_pictures)
        print(f'{folder.parent}: takes no links, so the clips are copied, {size / 1e6:.0f} MB',
              flush=True)
    for video in videos:
        target = folder / video.line()
        target.parent.mkdir(exist_ok=True)
        if linked and not video.of_pictures:
            target.symlink_to(video.path.resolve())
            continue
        made[video.line()] = _source(video, rate)
        if not video.of_pictures:
            shutil.copyfile(video.path, target)
            continue
        try:
            make_video(video.path, target, rate)
        except VideoError as error:
            wrong.append(str(error))
            print(error, flush=True)
    if wrong:
        raise UserError(f'{len(wrong)} folders of pictures make no video, named above, '
                        f'{wrong[0]}; mend or remove them, then run this again')
    if made:
        (folder / MADE).write_text(json.dumps(made), encoding='utf-8')


def _takes_links(folder):
    probe = folder / '.probe'
    try:
        probe.symlink_to('nothing')
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    probe.unlink()
    return True
