"""What a file from elsewhere may ask for, and what a damaged one makes of its reading.

Lengths, counts and depths in a file are somebody's claims. Each reader holds them against the
file where it can, and against a Budget where a few bytes may stand for much (compression,
references, views that overlap), so that no file takes the machine's memory or an hour.
"""
import contextlib
import io
import struct
import tokenize
import zipfile
import zlib

# What h5py, zipfile, json and NumPy raise on a file that is cut off or has bytes changed.
DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError,
          ArithmeticError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError,
          struct.error, zlib.error, zipfile.BadZipFile)

# VGG-16's arrays have 553 MB, the largest 411 MB; twice that in float64.
MOST_OF_ALL = 1 << 31
# Opcodes of a pickle, fields of a message, entries of a folder.
MOST_OBJECTS = 500_000
MOST_DIMENSIONS = 8
# A card with a thousand classes has 50 KB; NumPy keeps four bytes a letter.
MOST_OF_TEXT = 1 << 24
# A zip's table of contents has about 100 bytes an entry.
MOST_OF_CONTENTS = 1 << 22


class Budget:
    """Counts what the reading of one file builds, and ends it where it is far too much.

    Args:
        size: bytes that its arrays may have together.
    """

    def __init__(self, size=MOST_OF_ALL):
        self.objects, self.bytes = MOST_OBJECTS, size

    def take(self, objects=0, size=0):
        """Raises ValueError when the file has asked for more than any VGG-16 needs."""
        self.objects -= objects
        self.bytes -= size
        if self.objects < 0:
            raise ValueError(f'it has more than {MOST_OBJECTS} parts')
        if self.bytes < 0:
            raise ValueError('it asks for more memory than VGG-16 needs')


def reason_of(error):
    """What an exception of DAMAGE says, in one short line."""
    if isinstance(error, MemoryError):
        return 'it asks for more memory than there is'
    return ' '.join(str(error).split())[:200] or type(error).__name__


class _Contents(io.FileIO):
    """A file that gives no more at once than a zip's table of contents may have."""
    limit = MOST_OF_CONTENTS

    def read(self, size=-1):
        if self.limit and size > self.limit:
            raise ValueError(f'a table of contents of {size} bytes')
        return super().read(size)


@contextlib.contextmanager
def open_zip(path):
    """Gives a zipfile.ZipFile to read.

    Raises:
        ValueError: its table of contents is no network's, or has a name twice, of which
            readers take different ones.
    """
    with _Contents(path) as file, zipfile.ZipFile(file) as archive:
        file.limit = None
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ValueError('a name stands twice in it')
        yield archive
