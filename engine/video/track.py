"""The video track of a file as its container tells of it, and how a file is refused that is not
plain."""
from typing import Callable, NamedTuple

import numpy


class Odd(ValueError):
    """What a file holds is not plain, or not what it should be: ffmpeg has to say."""


def must(holds):
    """Raises Odd where something does not hold."""
    if not holds:
        raise Odd


class Track(NamedTuple):
    """The one video track of a file.

    codec, config: its codec, 'h264', and what the container has of its headers.
    width, height: pixels, as the container tells, before any turning.
    begins, ends: (n,) where each packet begins and ends, in the order of decoding.
    kind: what must be equal in two files for one decoder to read one after the other.
    wrap: function that makes a file of such a track of a list of packets (bytes).
    """
    codec: str
    config: bytes
    width: int
    height: int
    begins: numpy.ndarray
    ends: numpy.ndarray
    kind: tuple
    wrap: Callable
