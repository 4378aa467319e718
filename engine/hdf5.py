"""HDF5 files of clips: written whole, with checksums; read as files of a stranger are.

A file holds one data set a clip, called as the clip is. What it says of itself stands in its
attributes and in the group `.about`: no clip's name begins with a dot. Files made before have
`_statistics`, `_held_out` and `_missing` beside the clips.
"""
import contextlib
import errno
import io
import json
import math
import os
import zlib
from pathlib import Path

import h5py
import numpy

from engine.errors import UserError
from engine.files import cannot_be_written, replacing
from engine.variants import packed_together

ABOUT = '.about'
# The attribute with the texts of all others, of a fixed length, to be read: HDF5 keeps other texts
# in a heap without a checksum, and a damaged one may hold its library for ever.
SAID, MOST_SAID = 'texts', 60000  # and how many bytes fit in the header of a file
OLD_NAMES = ('statistics', 'held_out', 'missing')
# What a file says of itself in its attributes, where it is one of ours.
TEXTS = {'classes', 'settings', 'method', 'readout', 'model_sha256', 'set', 'stream', 'fusion',
         'layer', 'fold', 'made_with'}
NUMBERS = {'split', 'seed', 'step', 'views', 'n_features'}
SIDES = {'maps'}
# What a file system says that has no locks; 524 is the kernel's ENOTSUPP, which C has no name for.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524)
# What else h5py raises on a file that is damaged, or not what it seems.
DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError, OverflowError)
# Attribute of a data set: the CRC-32 of its bytes. HDF5's own checksums want chunks, whose index
# has none: one byte changed there and HDF5 looks for a chunk for ever.
CHECKSUM = 'crc32'
# The filters that HDF5 and h5py bring: others would be loaded as libraries. The number is how
# many times as large as in the file the data may be by it.
FILTERS = {h5py.h5z.FILTER_DEFLATE: 1032, h5py.h5z.FILTER_LZF: 128,
           h5py.h5z.FILTER_SHUFFLE: 1, h5py.h5z.FILTER_FLETCHER32: 1}


# ------------------------------------------------------------------------ writing

class _Output(io.FileIO):
    """Where HDF5 writes to.

    It crashes on a full disk, as it tries again at the end what could not be written: so it
    never hears of it, and `error` tells.
    """

    error = None

    def write(self, data):
        view = memoryview(data).cast('B')
        self._try(lambda: self._write_all(view))
        return len(view)

    def _write_all(self, view):
        while view:
            view = view[super().write(view):]

    def truncate(self, size=None):
        self._try(lambda: io.FileIO.truncate(self, size))
        return size

    def _try(self, work):
        try:
            if self.error is None:
                work()
        except OSError as error:
            self.error = error


class NewFile(h5py.File):
    """An HDF5 file in the making; data sets go in by `add`."""

    def __init__(self, path, output):
        self.path, self.output = path, output
        # The form of 2008, the first with checksums of all but the data.
        super().__init__(output, 'w', libver='v108')

    def add(self, name, array, group=None):
        """Writes an array as a data set in one piece, so that a segment is one read."""
        data = (group or self).create_dataset(name, data=array, track_times=False)
        data.attrs[CHECKSUM] = _checksum(array)
        self.check()

    def tell(self, **attributes):
        """Stores what the file says of itself, once: texts, numbers, arrays of them."""
        self.attrs.update(attributes)
        texts = {name: value for name, value in attributes.items() if isinstance(value, str)}
        said = json.dumps(texts).encode()
        if len(said) <= MOST_SAID:
            self.attrs[SAID] = numpy.bytes_(said)
        self.check()

    def about(self):
        """The group of what the file says of itself."""
        return self.require_group(ABOUT)

    def add_names(self, key, names):
        """Stores a list of clips' names under `key`, which read_names gives back."""
        self.add(key, numpy.array([name.encode() for name in names], 'S'), self.about())

    def check(self):
        """Raises the UserError of what could not be written so far."""
        if self.output.error:
            raise cannot_be_written(self.path, self.output.error)


def _checksum(array):
    return numpy.uint32(zlib.crc32(numpy.ascontiguousarray(array).ravel().view(numpy.uint8)))


@contextlib.contextmanager
def writing(*paths):
    """Gives a NewFile for each path; they appear when the block ends well and all are written."""
    with contextlib.ExitStack() as names:
        temporaries = [names.enter_context(replacing(path)) for path in paths]
        files = []
        with contextlib.ExitStack() as stack:
            for path, temporary in zip(paths, temporaries):
                output = stack.enter_context(_Output(temporary, 'w+'))
                files.append(stack.enter_context(NewFile(path, output)))
            yield files
        for f in files:
            f.check()


# ------------------------------------------------------------------------ reading

def open_file(path, mode='r'):
    """An h5py.File; without locks where the file system has none.

    Raises:
        OSError: as h5py.File does; BlockingIOError where another process has it open.
    """
    try:
        return h5py.File(path, mode)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return h5py.File(path, mode, locking=False)


def open_hdf5(path, made_by):
    """Opens an HDF5 file to read; says which command makes it where it is missing.

    Raises:
        UserError: it is not there, in use, damaged, or of another run of save_hdf5.py than the
            files that it wrote beside it.
    """
    try:
        f = open_file(path)
    except BlockingIOError:
        raise in_use(path) from None
    except FileNotFoundError:
        raise UserError(f'{path}: not there; made by: {made_by}') from None
    except OSError as error:
        if error.errno:  # of the file system, not of the file
            raise UserError(f'{path}: cannot be read: {os.strerror(error.errno)}') from error
        raise UserError(f'{path}: not a readable HDF5 file ({" ".join(str(error).split())}); '
                        f'make it again: {made_by}') from None
    try:
        attributes(f)  # whether they can be read
        _check_set(f, Path(path), made_by)
    except BaseException:
        f.close()
        raise
    return f


def in_use(path):
    """The UserError of a file that another process has open."""
    return UserError(f'{path}: in use: another process writes it, or has it open; run the command '
                     'again when that is done')


def _check_set(f, path, made_by):
    """Refuses one of the four files of save_hdf5.py where another is of another run."""
    for name in packed_together(path.name):
        other = path.with_name(name)
        if name != path.name and other.exists():
            with contextlib.suppress(OSError), open_file(other) as beside:
                pair = [attributes(each, ('set', 'model_sha256')) for each in (f, beside)]
                # One that somebody else has written says nothing of a model.
                if (pair[0].get('set') != pair[1].get('set')
                        and all('model_sha256' in each for each in pair)):
                    raise UserError(f'{path}: not packed together with {name} beside it, as after '
                                    f'a run that was stopped; make both again: {made_by}')


def attribute(f, name, default=None):
    """An attribute as `attributes` gives it; `default` where there is none."""
    return attributes(f, [name]).get(name, default)


def attributes(f, names=None):
    """{name: str, int, float or array} of the attributes of an open file that are such.

    Raises:
        UserError: they are damaged, or one is not of the kind that a stage writes.
    """
    try:
        texts, asked = _texts(f), set(f.attrs if names is None else names) - {SAID}
        found = {name: texts[name] if name in texts else f.attrs[name] for name in sorted(asked)
                 if name in f.attrs and f.attrs.get_id(name).get_type().get_class() in (
                     h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT)}
    except DAMAGE as error:
        raise UserError(f'{f.filename}: damaged ({" ".join(str(error).split())}); make it '
                        'again') from error
    found = {name: _plain(value) for name, value in found.items()}
    for name, value in found.items():
        for known, fits, word in (
                (TEXTS, isinstance(value, str), 'a text'),
                (NUMBERS, isinstance(value, int) and value >= 0, 'a whole number'),
                (SIDES, numpy.shape(value) == (3,) and value.dtype.kind in 'iu', 'three sides')):
            if name in known and not fits:
                raise UserError(f'{f.filename}: its {name} is {str(value)[:50]!r}, not {word}; '
                                'make it again')
    return found


def _texts(f):
    """{name: text} of what NewFile.tell stored; {} in files of others, and made before."""
    if SAID not in f.attrs or f.attrs.get_id(SAID).dtype.kind != 'S':
        return {}
    texts = json.loads(f.attrs[SAID])
    return texts if isinstance(texts, dict) else {}


def _plain(value):
    """A text or number as Python's own; arrays as they are."""
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    return value.item() if isinstance(value, numpy.generic) else value


def member(group, name):
    """What stands under a name in an open file or group; None where nothing does.

    Raises:
        ValueError: it is a link, which may lead to another file.
    """
    if '/' in name or name == '.' or not group.id.links.exists(name.encode()):
        return None
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError('is a link to something else')
    return group[name]


def check_data(data):
    """Refuses a data set that is not read as numbers or texts of a fixed length in this file.

    No other file is read, no filter of others loaded, and a small file cannot claim terabytes.

    Raises:
        ValueError: the reason.
    """
    if not isinstance(data, h5py.Dataset):
        raise ValueError('is no data set')
    if data.dtype.kind not in 'fiubS' or h5py.check_ref_dtype(data.dtype):
        raise ValueError('holds neither numbers nor texts of a fixed length')
    if data.shape is None:
        raise ValueError('is empty')
    layout = data.id.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise ValueError('has its numbers in another file')
    growth = 1
    for number in range(layout.get_nfilters()):
        code = layout.get_filter(number)[0]
        if code not in FILTERS:
            raise ValueError(f'is packed by a filter (number {code}) that is not loaded')
        growth *= FILTERS[code]
    size = math.prod(data.shape) * data.dtype.itemsize
    held = min(data.id.get_storage_size(), data.file.id.get_filesize())
    if size > growth * held:
        raise ValueError(f'claims {size} bytes, but {held} are in the file')


def data_set(f, name, made_by):
    """The data set of a clip in an open file; None where it has none.

    Raises:
        UserError: it is damaged, or one that is not read.
    """
    with _named(f, name, made_by):
        data = member(f, name)
        if data is not None:
            check_data(data)
        return data


def read(f, name, made_by, rows=None):
    """The (frames, D) floating-point numbers of a clip, or those of the frames of a slice `rows`.

    A whole clip is held against its checksum.

    Raises:
        UserError: they are not there, cannot be read, or are not what was written.
    """
    data = data_set(f, name, made_by)
    with _named(f, name, made_by):
        if data is None:
            raise ValueError('is not there')
        if data.dtype.kind != 'f':
            raise ValueError('does not hold floating-point numbers')
        return _whole(data) if rows is None else data[rows]


def _whole(data):
    array = data[()]
    if CHECKSUM in data.attrs and data.attrs[CHECKSUM] != _checksum(array):
        raise ValueError('is damaged: its checksum is another')
    return array


@contextlib.contextmanager
def _named(f, name, made_by):
    """Names file, clip and command in what goes wrong."""
    try:
        yield
    except DAMAGE as error:
        raise UserError(f'{f.filename}: {name} {_reason(error)}; make it again: '
                        f'{made_by}') from error


def _reason(error):
    words = ' '.join(str(error).split())
    return words if type(error) is ValueError else f'cannot be read ({words})'


def clip_names(f):
    """Names of the clips in an open file, sorted."""
    return sorted(name for name in f if name != ABOUT
                  and not (name[1:] in OLD_NAMES and name[0] == '_' and _tells(f, name)))


def _tells(f, name):
    """Whether what an old file calls so is about the file; of a clip it has two axes."""
    with contextlib.suppress(ValueError):
        return getattr(member(f, name), 'ndim', 0) < 2
    return False


def about(f, key):
    """What an open file says of itself: the group or data set `key`; None where nothing.

    Raises:
        UserError: it is a link to something else.
    """
    try:
        group = member(f, ABOUT)
        if group is not None:
            return member(group, key)
        return member(f, f'_{key}') if _tells(f, f'_{key}') else None
    except DAMAGE as error:
        raise UserError(f'{f.filename}: what it says of itself {_reason(error)}') from error


def read_names(f, key):
    """The list that add_names stored; [] where there is none."""
    data = about(f, key)
    if data is None:
        return []
    try:
        check_data(data)
        return [name.decode() for name in _whole(data)]
    except DAMAGE as error:
        raise UserError(f'{f.filename}: its list "{key}" {_reason(error)}') from error
