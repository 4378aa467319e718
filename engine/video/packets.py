"""The packets of a plain .avi of MPEG-4 Part 2, as UCF-101 is: how many frames they are without
decoding one, and those from a key frame to the frame that is wanted.

Whatever is not plain is left to ffmpeg: other containers and codecs, B-frames, a packet that is
empty, not coded or of two frames, an index that differs from what is there, a byte too many.
What is damaged within a picture shows only when that is decoded; it is a frame still.
After ISO/IEC 14496-2, 6.2.2 to 6.2.5, and Microsoft's AVI RIFF reference.
"""
import functools
import os
import re
import struct
from typing import NamedTuple

import numpy

CODECS = (b'XVID', b'DIVX', b'DX50', b'FMP4')
# Start codes: of any header, of a picture, and of a time that may stand before it (7 bytes).
START, PICTURE, TIME = b'\0\0\1', b'\0\0\1\xb6', b'\0\0\1\xb3'
# What a file may have: it is read into memory.
MOST_BYTES = 1 << 26
# Frames a second: beyond, it may be the unit of a clock.
MOST_RATE = 120

# A key frame's headers: profile, object, layer, and what the encoder calls itself.
HEADERS = re.compile(rb'(?:\0\0\x01\xb0[\x01-\x0f\xf0-\xf5])?(?:\0\0\x01\xb5[^\0]{1,3})?'
                     rb'(?:\0\0\x01[\0-\x1f])?\0\0\x01[\x20-\x2f]'
                     rb'(?P<layer>(?:(?!\0\0\x01).){9,40})(?:\0\0\x01\xb2[^\0]{0,60})?', re.DOTALL)
# Bits of a layer: simple or advanced simple; version; pixels; buffers; rectangle, ticks a second.
LAYER = re.compile('.(00000001|00010001)(0|1(?P<version>.{4}).{3})((?!1111).{4}|1111.{16})'
                   '(0|1...(0|1.{79}))001(?P<ticks>.{16})1')
# What follows: frame rate, width and height, interlaced, no sprite, 8 bits, quantizer's kind, no
# estimates, one partition, one layer. Two more bits here and there since version 2.
FIRST = '(0|1.{%d})1.{13}1.{13}1(?P<interlaced>.)100(0|100)1.00'
SECOND = '(0|1.{%d})1.{13}1.{13}1(?P<interlaced>.)1000(0|100).1.0000'
# Bits of a picture, I or P: seconds, ticks, coded; rounding, thresholds, fields, scale, reach.
COMMON = '1*01.{%(ticks)d}11%(rounding)s...%(fields)s(?!00000).{5}'


class Packets(NamedTuple):
    """A plain clip: its bytes, where its list of packets begins, where each packet of its video
    begins and ends (n,), which are key frames; and what must be equal in two clips for one
    decoder to read one after the other."""
    data: bytes
    begin: int
    begins: numpy.ndarray
    ends: numpy.ndarray
    keys: numpy.ndarray
    kind: tuple

    def needed(self, frames):
        """The packets (ascending) that must be decoded for these frames."""
        keys = self.keys[numpy.searchsorted(self.keys, frames, 'right') - 1]
        return sorted({packet for key, frame in zip(keys.tolist(), frames)
                       for packet in range(key, frame + 1)})


def packets_of(path):
    """The Packets of a file; None where it is not plain, or cannot be read."""
    try:
        # a pipe would be waited for
        if not os.path.isfile(path) or os.path.getsize(path) > MOST_BYTES:
            return None
        with open(path, 'rb') as f:
            data = f.read(MOST_BYTES)
        return _packets(data)
    except (OSError, struct.error, ValueError):
        return None


def joined(clips):
    """The bytes of an .avi of chosen packets, [(Packets, their numbers)], of one kind."""
    chunks = [clip.data[clip.begins[number]:clip.ends[number]]
              for clip, numbers in clips for number in numbers]
    first, length = clips[0][0], sum(map(len, chunks))
    head = first.data[8:first.begin - 12]
    return b''.join([b'RIFF', struct.pack('<I', len(head) + 12 + length), head, b'LIST',
                     struct.pack('<I', 4 + length), b'movi', *chunks])


# ------------------------------------------------------------------------- the file

def _packets(data):
    begin = _start_of_list(data)
    form = begin and _form(data[:begin])
    if not form:
        return None
    count, streams, kind = form
    chunks = _chunks(data, begin)
    if chunks is None:
        return None
    names, begins, ends = chunks
    sounds = [b'%02dwb' % number for number in range(1, streams)]
    video = names == b'00dc'
    if not numpy.isin(names[~video], sounds).all() or video.sum() != count or not count:
        return None
    begins, ends = begins[video], ends[video]
    pictures = [data[at + 8:at + 8 + _number(data, at + 4)] for at in begins.tolist()]
    found = _keys(pictures)
    return found and Packets(data, begin, begins, ends, found[1], (kind, found[0]))


def _start_of_list(data):
    """Where the list of packets begins in a RIFF of the size that it tells; None if it is none."""
    if (data[:4], data[8:16], data[20:24]) != (b'RIFF', b'AVI LIST', b'hdrl') or (
            _number(data, 4) + 8 != len(data)):
        return None
    at = 12
    while data[at:at + 4] == b'JUNK' or data[at + 8:at + 12] in (b'hdrl', b'INFO'):
        size = _number(data, at + 4)
        at += 8 + size + size % 2
    return at + 12 if (data[at:at + 4], data[at + 8:at + 12]) == (b'LIST', b'movi') else None


def _number(data, at):
    return struct.unpack_from('<I', data, at)[0]


def _form(head):
    """(frames, streams, what tells the decoder about the video) of a header: stream 0 is MPEG-4
    without headers of its own, the others sound; None if not."""
    found = list(re.finditer(rb'LIST.{4}strlstrh\x38\0\0\0(.{56})strf(.{4})(.{20})', head,
                             re.DOTALL))
    if head[24:32] != b'avih\x38\0\0\0' or not found or b'indx' in head:
        return None
    count, streams = _number(head, 48), _number(head, 56)
    video, size, format = found[0].groups()
    if ([stream[1][:4] for stream in found] != [b'vids'] + [b'auds'] * (streams - 1)
            or format[16:20].upper() not in CODECS or _number(size, 0) != 40
            or _number(head, 32) < 1e6 / MOST_RATE or _number(video, 28)
            or _number(video, 32) != count):
        return None
    return count, streams, format


def _chunks(data, begin):
    """Names, begins and ends of all packets, (n,) each, where the index tells of every one, in
    order, and nothing else is there; None if not."""
    end = begin - 4 + _number(data, begin - 8)
    size = _number(data, end + 4)
    if data[end:end + 4] != b'idx1' or size % 16 or end + 8 + size != len(data):
        return None
    index = numpy.frombuffer(data, '<u4', size // 4, end + 8).reshape(-1, 4)
    sizes, places = index[:, 3].astype(int), index[:, 2].astype(int)
    ends = begin + (8 + sizes + sizes % 2).cumsum()
    if not len(index) or ends[-1] != end:
        return None
    begins = numpy.concatenate([[begin], ends[:-1]])
    told = numpy.frombuffer(data, numpy.uint8)[begins[:, None] + numpy.arange(8)].view('<u4')
    if (places - places[0] != begins - begin).any() or places[0] not in (4, begin) or (
            told != index[:, [0, 3]]).any():
        return None
    return index[:, 0].copy().view('S4'), begins, ends


# --------------------------------------------------------------------- its pictures

def _keys(pictures):
    """(headers, (n,) numbers of the pictures that begin with them), where each of the packets is
    one coded I or P picture, the first with headers, and those of others equal; None if not."""
    first, keys = pictures[0].partition(PICTURE)[0], []
    first = first[:-7] if first[-7:-3] == TIME else first
    pattern = _picture(first)
    if not pattern:
        return None
    for number, packet in enumerate(pictures):
        before, _, picture = packet.partition(PICTURE)
        headers = before[:-7] if before[-7:-3] == TIME else before
        bits = f'{int.from_bytes(picture[:16].ljust(16, bytes(1)), "big"):0128b}'
        if headers not in (b'', first) or not pattern.match(bits) or START in picture:
            return None
        if headers:
            keys.append(number)
            if bits[:2] != '00':
                return None
    return first, numpy.array(keys)


@functools.lru_cache(16)
def _picture(headers):
    """The pattern of bits with which each picture begins, after these headers; None where they
    are not plain."""
    found = HEADERS.fullmatch(headers)
    if not found:
        return None
    bits = f'{int.from_bytes(found["layer"], "big"):0{8 * len(found["layer"])}b}'
    layer = LAYER.match(bits)
    if not layer:
        return None
    ticks = max(1, (int(layer['ticks'], 2) - 1).bit_length())
    rest = FIRST if layer['version'] in (None, '0001') else SECOND
    rest = re.compile(rest % ticks).match(bits, layer.end())
    if not rest or not int(layer['ticks'], 2):
        return None
    words = {'ticks': ticks, 'fields': '..' if rest['interlaced'] == '1' else ''}
    return re.compile('00' + COMMON % {**words, 'rounding': ''} + '|01' + COMMON
                      % {**words, 'rounding': '.'} + '(?!000)...')
