"""Files that appear whole or not at all, and reading that never runs code."""
import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import stat
import sys
import tempfile
import time
import uuid
import zipfile
from pathlib import Path

import numpy

from engine.errors import UserError

# Asked once: asking means setting it, which other threads would feel.
UMASK = os.umask(0)
os.umask(UMASK)

SPECIAL = 'no file but a pipe, a socket or a device'

_temporaries = set()


def remove_temporaries():
    """Removes what is half written by this process, for those that leave by a signal."""
    for temporary in list(_temporaries):
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path in the folder of `path`; renames it when the block ends well.

    A reader sees the old file or the whole new one, whatever kills the writer, and a machine
    that loses its power too.

    Raises:
        UserError: the file cannot be written (disk full, read-only, folder gone).
    """
    path = os.fspath(path)
    _refuse_folder(path)
    folder, name = os.path.split(path)
    # Two writers never share one.
    temporary = os.path.join(folder or '.', f'{_prefix(name)}{uuid.uuid4().hex[:12]}.part')
    _temporaries.add(temporary)  # before it is there: a signal may come at any moment
    try:
        try:
            make_folder(folder)
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise cannot_be_written(path, error) from error
        yield temporary
        put(temporary, path)
    except OSError as error:
        if error.filename not in (None, path, temporary):
            raise
        raise cannot_be_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        _temporaries.discard(temporary)


def as_output(file):
    """The word that names an open file to a program that gets it by pass_fds=[file.fileno()].

    By the name of a temporary file a program that still starts would make it once more, when a
    signal has ended us and removed it. But beside Linux what is opened so shares its place in the
    file with all others, and an .mp4 is read while it is written.
    """
    return (f'/dev/fd/{file.fileno()}' if sys.platform == 'linux' else
            f'file:{os.path.abspath(file.name)}')


def check_outputs(*paths):
    """Refuses, before the work, what could not be written after it.

    Raises:
        UserError: a path is a folder, or no file can be made beside it.
    """
    for path in paths:
        _refuse_folder(path)
        folder = os.path.dirname(os.path.abspath(path))
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise cannot_be_written(path, error) from error


def _refuse_folder(path):
    if os.path.isdir(path):
        raise UserError(f'{path}: is a folder, where a file is to be written; move it away, then '
                        'run the command again')


def _prefix(name):
    """How the temporary names for a file begin: a dot, so that nothing takes one for a result."""
    while len(os.fsencode(name)) > 230:  # with what follows it may have 255 bytes
        name = name[:-1]
    return f'.{name}.'


def put(temporary, path):
    """Gives a finished file or folder its name, on the disk as well.

    Without the syncs a machine that loses its power may keep the name and lose the bytes.
    """
    if os.path.isdir(temporary):
        os.sync()
    else:
        with open(temporary, 'rb+') as f:
            sync(f.fileno())
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


def sync(descriptor):
    """Waits until an open file or folder is on the disk; not where a file system knows no such."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def sync_folder(folder):
    """Waits until the names in a folder are on the disk."""
    try:
        descriptor = os.open(folder or '.', os.O_RDONLY)
    except OSError:
        return  # may be written into but not read, or no such thing can be opened at all
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder):
    """Makes a folder and those above it, where they are not there, on the disk as well."""
    folder = folder or '.'
    if not os.path.isdir(folder):
        make_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):  # by another process, a moment ago
            os.mkdir(folder)
            sync_folder(os.path.dirname(folder))


def cannot_be_written(path, error):
    """The UserError of what was met in writing a file: an OSError, or what h5py raises."""
    reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())
    hdf5 = re.search("error message = '([^']+)'", reason)
    return UserError(f'{path}: cannot be written: {hdf5[1] if hdf5 else reason}; '
                     'check space and rights there, then run the command again')


def remove_leftovers(paths, older_than=900.0):
    """Removes what killed writers of `paths` have left beside them.

    Args:
        older_than: seconds without a change after which no writer can be alive.
    """
    names = {}
    for path in paths:
        folder, name = os.path.split(os.fspath(path))
        names.setdefault(folder or '.', set()).add(_prefix(name)[1:-1])
    for folder in names:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                found = re.fullmatch(r'\.(.+)\.[^.]+\.part', entry.name)
                if (found and found[1] in names[folder]
                        and time.time() - entry.stat().st_mtime > older_than):
                    os.unlink(entry.path)


def files_under(folder, unreadable=None):
    """Paths of all files below a folder but hidden ones, sorted.

    Linked folders are followed, each folder once however often it is linked; a link to a folder
    that `folder` is in is passed over.

    Args:
        unreadable: function of (folder, reason), called for a folder that cannot be read.

    Raises:
        UserError: that, where no such function is given.
    """
    def refuse(folder, reason):
        raise UserError(f'{folder}: {reason}') from None
    found, links = [], [folder]
    seen = {_identity(above) for above in Path(folder).resolve().parents}
    while links:
        # Links last, so that what is there by itself keeps its own path.
        waiting = [links.pop(0)]
        while waiting:
            place = waiting.pop(0)
            try:
                if (identity := _identity(place)) in seen:
                    continue
                seen.add(identity)
                entries = sorted(os.scandir(place), key=lambda entry: entry.name)
            except OSError as error:
                (unreadable or refuse)(place, error.strerror)
                continue
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                if not _is_folder(entry):
                    found.append(Path(entry.path))
                else:
                    (links if entry.is_symlink() else waiting).append(entry.path)
    return sorted(found)


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to what may not be looked at
        return False


def _identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def why_no_file(path):
    """Why a path is no file with something in it that can be read; '' where it is."""
    try:
        status = os.stat(path)
    except OSError as error:
        dangling = os.path.islink(path) and f', a link to {os.readlink(path)}'
        return f'{error.strerror}{dangling or ""}'
    if not stat.S_ISREG(status.st_mode):
        return SPECIAL
    if not os.access(path, os.R_OK):
        return os.strerror(errno.EACCES)
    return '' if status.st_size else 'an empty file'


def sha256(path):
    """The SHA-256 of a file, as hexadecimal digits."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def write_text(path, text):
    """Writes text as UTF-8, line ends as they are; the file appears whole or not at all.

    Names of files that are no UTF-8 come out as the bytes that they are.
    """
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8', newline='',
                                            errors='surrogateescape') as f:
        f.write(text)


def csv_text(rows, delimiter=',', end='\n'):
    """Rows of a table as text, quoted as CSV has it."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


def save_npy(path, array):
    """Writes one array as .npy; the file appears whole or not at all."""
    # Into a file NumPy writes by C's stdio, and does not look whether the last bytes got there.
    data = io.BytesIO()
    numpy.save(data, array, allow_pickle=False)
    with replacing(path) as temporary, open(temporary, 'wb') as f:
        f.write(data.getbuffer())


def load_npy(path, mmap=False):
    """Reads one array from .npy; never unpickles.

    Raises:
        UserError: the file is missing, cut off, or not an array of numbers.
    """
    try:
        array = numpy.load(path, mmap_mode='r' if mmap else None, allow_pickle=False)
        if not isinstance(array, numpy.ndarray):
            array.close()
            raise ValueError('an .npz archive')
        return array
    except FileNotFoundError:
        raise UserError(f'{path}: not there') from None
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else 'empty'
        raise UserError(f'{path}: not a readable .npy file ({reason}); delete it and run '
                        'the command that makes it again') from error


def append_line(path, line):
    """Appends one line in a single write, so that lines of two processes do not mix.

    A line before it that was cut off (disk full) is ended first, so that it spoils no other.
    """
    data = (line.rstrip('\n') + '\n').encode(errors='surrogateescape')
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b'\n':
                data = b'\n' + data
            written = os.write(descriptor, data)
            if written < len(data):
                if os.fstat(descriptor).st_size == size + written:  # half a line is none
                    os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            sync_folder(os.path.dirname(path))
    except OSError as error:
        raise UserError(f'{path}: cannot be written: {error.strerror}') from error


def find_file(name, root):
    """The file as given, or else in ROOT."""
    return Path(name) if os.path.exists(name) else Path(root) / name


def json_of(text):
    """The JSON value of a text (str or bytes) that may be anybody's.

    Raises:
        ValueError: it is none, or nested deeper than Python goes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError('nested too deep') from None


def read_json(path):
    """The JSON value in a file, or None where there is no file."""
    try:
        return json_of(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f'{path}: not readable ({error}); delete it and run again') from None
