"""The video track of a plain .avi, as UCF-101's are: an index that tells of every packet, in order,
and nothing else is there.

Not plain are an index that differs from what is there, a count that is none, a byte too many.
After Microsoft's AVI RIFF reference.
"""
import functools
import re
import struct

import numpy

from engine.video.track import Track, must

CODECS = (b'XVID', b'DIVX', b'DX50', b'FMP4')
# Frames a second: beyond, it may be the unit of a clock.
MOST_RATE = 120


def track_of(data):
    """The Track of a file's bytes; raises Odd, ValueError or struct.error where it is not
    plain."""
    begin = _start_of_list(data)
    count, streams, form = _form(data[:begin])
    names, begins, ends = _chunks(data, begin)
    sounds = [b'%02dwb' % number for number in range(1, streams)]
    video = names == b'00dc'
    must(numpy.isin(names[~video], sounds).all() and video.sum() == count and count)
    width, height = struct.unpack_from('<ii', form, 4)
    return Track('mpeg4', b'', width, height, begins[video], ends[video], ('avi', form),
                 functools.partial(_wrapped, data[8:begin - 12]))


def _wrapped(head, packets):
    """A file of such a video with these packets."""
    chunks = b''.join(struct.pack('<4sI', b'00dc', len(packet)) + packet + bytes(len(packet) % 2)
                      for packet in packets)
    return b''.join([b'RIFF', struct.pack('<I', len(head) + 12 + len(chunks)), head, b'LIST',
                     struct.pack('<I', 4 + len(chunks)), b'movi', chunks])


def _start_of_list(data):
    """Where the list of packets begins in a RIFF of the size that it tells."""
    must((data[:4], data[8:16], data[20:24]) == (b'RIFF', b'AVI LIST', b'hdrl')
         and _number(data, 4) + 8 == len(data))
    at = 12
    while data[at:at + 4] == b'JUNK' or data[at + 8:at + 12] in (b'hdrl', b'INFO'):
        size = _number(data, at + 4)
        at += 8 + size + size % 2
    must((data[at:at + 4], data[at + 8:at + 12]) == (b'LIST', b'movi'))
    return at + 12


def _number(data, at):
    return struct.unpack_from('<I', data, at)[0]


def _form(head):
    """(frames, streams, what tells the decoder about the video) of a header: stream 0 is MPEG-4
    without headers of its own, the others sound."""
    found = list(re.finditer(rb'LIST.{4}strlstrh\x38\0\0\0(.{56})strf(.{4})(.{20})', head,
                             re.DOTALL))
    must(head[24:32] == b'avih\x38\0\0\0' and found and b'indx' not in head)
    count, streams = _number(head, 48), _number(head, 56)
    video, size, format = found[0].groups()
    must([stream[1][:4] for stream in found] == [b'vids'] + [b'auds'] * (streams - 1)
         and format[16:20].upper() in CODECS and _number(size, 0) == 40
         and _number(head, 32) >= 1e6 / MOST_RATE and not _number(video, 28)
         and _number(video, 32) == count)
    return count, streams, format


def _chunks(data, begin):
    """Names, begins and ends of all packets, (n,) each, where the index tells of every one, in
    order, and nothing else is there."""
    end = begin - 4 + _number(data, begin - 8)
    size = _number(data, end + 4)
    must(data[end:end + 4] == b'idx1' and size % 16 == 0 and end + 8 + size == len(data))
    index = numpy.frombuffer(data, '<u4', size // 4, end + 8).reshape(-1, 4)
    sizes, places = index[:, 3].astype(int), index[:, 2].astype(int)
    ends = begin + (8 + sizes + sizes % 2).cumsum()
    must(len(index) and ends[-1] == end)
    begins = numpy.concatenate([[begin], ends[:-1]])
    told = numpy.frombuffer(data, numpy.uint8)[begins[:, None] + numpy.arange(8)].view('<u4')
    must((places - places[0] == begins - begin).all() and places[0] in (4, begin)
         and (told == index[:, [0, 3]]).all())
    return index[:, 0].copy().view('S4'), begins + 8, begins + 8 + sizes
