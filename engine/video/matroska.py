"""The one video track of a .mkv or .webm all of whose elements fit exactly.

Not plain are several video tracks, attachments, tracks that are packed or encrypted, several
packets in one block, elements that are not known here, sizes that are not told, and wrong sums.
After RFC 8794 (EBML) and RFC 9559 (Matroska).
"""
import functools
import struct
import zlib

import numpy

from engine.video.track import Track, must

HEAD, SEGMENT, VOID, SUM = 0x1A45DFA3, 0x18538067, 0xEC, 0xBF
SEEK_HEAD, INFO, TRACKS, CLUSTER = 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1F43B675
CUES, TAGS, CHAPTERS = 0x1C53BB6B, 0x1254C367, 0x1043A770
TRACK, NUMBER, KIND, CODEC, PRIVATE, VIDEO = 0xAE, 0xD7, 0x83, 0x86, 0x63A2, 0xE0
# What else may be told of a video track: it does not change what is decoded. Its UID, the time of
# a frame, lacing, languages, marks, names, caches.
ASIDE = {0x73C5, 0x23E383, 0x9C, 0x22B59C, 0x22B59D, 0x88, 0xB9, 0x55AA, 0x536E, 0x258688, 0x6DE7,
         0x6DF8, 0x55EE, 0xAA, 0x56BB, SUM, VOID}
WIDTH, HEIGHT = 0xB0, 0xBA
TIME, SIMPLE, GROUP, BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
IN_CLUSTER = {TIME, SIMPLE, GROUP, 0xAB, 0xA7, SUM, VOID}
IN_GROUP = {BLOCK, 0x9B, 0xFB, 0x75A2, SUM, VOID}
SCALE, DURATION = 0x2AD7B1, 0x4489
CODECS = {b'V_MPEG4/ISO/AVC': 'h264', b'V_MPEGH/ISO/HEVC': 'hevc', b'V_MPEG4/ISO/ASP': 'mpeg4'}
# Numbers of a file's head, and how large they are at most: versions, lengths of names and sizes.
NUMBERS = {0x4286: 1, 0x42F7: 1, 0x42F2: 4, 0x42F3: 8, 0x4287: 4, 0x4285: 2}
MOST_TIME = 1 << 15
MOST_ELEMENTS = 1 << 20


def track_of(data):
    """The Track of a file's bytes; raises Odd, ValueError or struct.error where it is not
    plain."""
    (head, *begin), (segment, *inside) = _elements(data, 0, len(data))
    must((head, segment) == (HEAD, SEGMENT))
    _check_head(data, _elements(data, *begin))
    elements = _elements(data, *inside)
    must({kind for kind, *_ in elements} <= {SEEK_HEAD, VOID, SUM, INFO, TRACKS, CLUSTER, CUES,
                                             TAGS, CHAPTERS})
    for kind, begin, end in elements:
        if kind == SEEK_HEAD:
            _check_places(data, begin, end, inside[0])
    (tracks,), (info,) = ([_elements(data, begin, end) for kind, begin, end in elements
                           if kind == wanted] for wanted in (TRACKS, INFO))
    number, others, track = _tracks(data, tracks)
    begins, ends, last = _blocks(data, [found[1:] for found in elements if found[0] == CLUSTER],
                                 number, others)
    _check_length(data, info, last)
    return track._replace(begins=begins, ends=ends)


def _elements(data, begin, end):
    """[(kind, begin, end)] of the elements that fill a place exactly; where it begins with a sum
    of the rest, that is right."""
    found = []
    while begin < end:
        width = 9 - data[begin].bit_length()
        kind = int.from_bytes(data[begin:begin + width], 'big')
        at = begin + width
        must(width <= 4 and at < end)
        size, width = _size(data, at)
        begin = at + width
        found.append((kind, begin, begin + size))
        begin += size
        must(len(found) <= MOST_ELEMENTS)
    must(begin == end)
    if found and found[0][0] == SUM:
        (_, at, behind), *_ = found
        must(data[at:behind] == struct.pack('<I', zlib.crc32(data[behind:end])))
    return found


def _size(data, at):
    """A size, and its own."""
    width = 9 - data[at].bit_length()
    must(width <= 8)
    bits = 7 * width
    size = int.from_bytes(data[at:at + width], 'big') & (1 << bits) - 1
    must(size != (1 << bits) - 1)  # not told
    return size, width


def _one(data, elements, wanted):
    """The content of the one element of a kind."""
    (begin, end), = [place for kind, *place in elements if kind == wanted]
    return data[begin:end]


def _check_head(data, elements):
    """Whether a file's head asks for nothing that is not known here."""
    must(_one(data, elements, 0x4282) in (b'matroska', b'webm'))
    for kind, begin, end in elements:
        must(kind in (0x4282, SUM, VOID) or kind in NUMBERS
             and 0 < int.from_bytes(data[begin:end], 'big') <= NUMBERS[kind])


def _check_places(data, begin, end, origin):
    """Whether a list of places tells where elements are."""
    for kind, *place in _elements(data, begin, end):
        if kind == 0x4DBB:
            seek = _elements(data, *place)
            at = origin + int.from_bytes(_one(data, seek, 0x53AC), 'big')
            wanted = _one(data, seek, 0x53AB)
            must(len(wanted) == 4 and data[at:at + 4] == wanted)


def _check_length(data, info, last):
    """Whether there is what a file's duration promises."""
    scale = [data[begin:end] for kind, begin, end in info if kind == SCALE]
    must(scale in ([], [b'\x0f\x42\x40']))  # milliseconds
    duration = [data[begin:end] for kind, begin, end in info if kind == DURATION]
    must(len(duration) <= 1)
    for number in duration:
        promised, = struct.unpack('>f' if len(number) == 4 else '>d', number)
        must(0 <= promised < 1.05 * last + 1000)


# --------------------------------------------------------------------------- its tracks

def _tracks(data, elements):
    """(number of the video track, of the others, Track without packets)."""
    videos, others = [], set()
    for kind, begin, end in elements:
        if kind in (VOID, SUM):
            continue
        must(kind == TRACK)
        inside = _elements(data, begin, end)
        number = int.from_bytes(_one(data, inside, NUMBER), 'big')
        must(0 < number < 127)
        if _one(data, inside, KIND) == b'\1':
            videos.append((number, inside))
        else:
            others.add(number)
    (number, inside), = videos
    must(number not in others and len(others) + 1 == sum(kind == TRACK for kind, *_ in elements))
    kinds = [kind for kind, *_ in inside]
    must(set(kinds) <= ASIDE | {NUMBER, KIND, CODEC, PRIVATE, VIDEO})
    codec, config, video = (_one(data, inside, wanted) for wanted in (CODEC, PRIVATE, VIDEO))
    must(codec in CODECS)
    pixels = _elements(video, 0, len(video))
    width, height = (int.from_bytes(_one(video, pixels, side), 'big') for side in (WIDTH, HEIGHT))
    kept = b''.join([_element(NUMBER, b'\1'), _element(0x73C5, b'\1'), _element(KIND, b'\1'),
                     _element(CODEC, codec), _element(PRIVATE, config), _element(VIDEO, video)])
    return number, others, Track(CODECS[codec], config, width, height, None, None, ('mkv', kept),
                                 functools.partial(_wrapped, kept))


def _blocks(data, clusters, number, others):
    """(n,), (n,), where each packet of the video begins and ends, and the last time told."""
    begins, ends, last, mark = [], [], 0, 128 + number
    known = {128 + other for other in others} | {mark}
    for place in clusters:
        elements = _elements(data, *place)
        must({kind for kind, *_ in elements} <= IN_CLUSTER)
        time = int.from_bytes(_one(data, elements, TIME), 'big')
        for kind, begin, end in elements:
            if kind == GROUP:
                inside = _elements(data, begin, end)
                must({kind for kind, *_ in inside} <= IN_GROUP)
                (begin, end), = [place for kind, *place in inside if kind == BLOCK]
            elif kind != SIMPLE:
                continue
            must(end - begin > 4 and data[begin] in known)
            later, flags = struct.unpack_from('>hB', data, begin + 1)
            last = max(last, time + later)
            if data[begin] == mark:
                must(not flags & 0x7e)
                begins.append(begin + 4)
                ends.append(end)
    return numpy.array(begins), numpy.array(ends), last


# ---------------------------------------------------------------------- another such file

def _element(kind, content):
    width = -(-kind.bit_length() // 8)
    return kind.to_bytes(width, 'big') + (len(content) | 1 << 56).to_bytes(8, 'big') + content


def _wrapped(kept, packets):
    """A file of such a track with these packets."""
    blocks = b''.join(_element(SIMPLE, struct.pack('>BHB', 129, min(number, MOST_TIME - 1), 128)
                               + packet) for number, packet in enumerate(packets))
    head = _element(HEAD, _element(0x4282, b'matroska'))
    return head + _element(SEGMENT, b''.join([
        _element(INFO, _element(SCALE, b'\x0f\x42\x40')), _element(TRACKS, _element(TRACK, kept)),
        _element(CLUSTER, _element(TIME, b'\0') + blocks)]))
