"""The packets of plain clips: how many frames they are without decoding one, and those from a key
frame to the frame that is wanted.

Plain are .avi of MPEG-4 Part 2, as UCF-101 is, and that, H.264 or HEVC in .mp4, .mov and .mkv,
progressive, with or without B-frames. Whatever is not plain is left to ffmpeg: avi.py, isomedia.py,
matroska.py, mpeg4.py, h264.py and hevc.py say what that is. VP9 and AV1 never are plain: their
decoders show no frame where a packet is damaged, even far behind its headers, which only decoding
tells.
"""
import os
import struct
from typing import Callable, NamedTuple

import numpy

from engine.video import avi, h264, hevc, isomedia, matroska, mpeg4

# Containers by what a file has at a place; codecs.
CONTAINERS = ((0, b'RIFF', avi), (4, b'ftyp', isomedia), (0, b'\x1a\x45\xdf\xa3', matroska))
CODECS = {'mpeg4': mpeg4, 'h264': h264, 'hevc': hevc}
# What a file may have: it is read into memory.
MOST_BYTES = 1 << 26


class Packets(NamedTuple):
    """A plain clip.

    data, begins, ends: its bytes; (n,) where each packet of its video begins and ends.
    shown: (n,) their numbers in the order in which they are shown.
    keys: (k,) those of key frames: what comes before such a one is shown before it, and nothing
        behind it needs that.
    idle: (n,) bool, whether no other needs it.
    kind: what must be equal in two clips for one decoder to read one after the other.
    wrap: function that makes a file of such a video of packets (bytes).
    """
    data: bytes
    begins: numpy.ndarray
    ends: numpy.ndarray
    shown: numpy.ndarray
    keys: numpy.ndarray
    idle: numpy.ndarray
    kind: tuple
    wrap: Callable

    def needed(self, frames):
        """([packets (bytes) that must be decoded for these frames], places (m,) of the frames
        among what these show)."""
        wanted = self.shown[frames]
        keys = self.keys[numpy.searchsorted(self.keys, wanted, 'right') - 1]
        numbers = sorted({number for key, last in zip(keys.tolist(), wanted.tolist())
                          for number in range(key, last + 1)
                          if not self.idle[number]}.union(wanted.tolist()))
        order = numpy.argsort(self.shown)  # of each packet, which frame it is
        return ([self.data[self.begins[number]:self.ends[number]] for number in numbers],
                numpy.searchsorted(numpy.sort(order[numbers]), frames))


def packets_of(path):
    """The Packets of a file; None where it is not plain, or cannot be read."""
    try:
        # a pipe would be waited for
        if not os.path.isfile(path) or os.path.getsize(path) > MOST_BYTES:
            return None
        with open(path, 'rb') as f:
            data = f.read(MOST_BYTES)
        return _packets(data)
    except (OSError, struct.error, ValueError, LookupError):
        return None


def _packets(data):
    for at, mark, container in CONTAINERS:
        if data[at:at + len(mark)] == mark:
            track = container.track_of(data)
            packets = [data[begin:end] for begin, end in zip(track.begins.tolist(),
                                                             track.ends.tolist())]
            *about, headers = CODECS[track.codec].pictures(track.config, track.width,
                                                           track.height, packets)
            return Packets(data, track.begins, track.ends, *map(numpy.array, about),
                           (*track.kind, headers), track.wrap)
    return None
