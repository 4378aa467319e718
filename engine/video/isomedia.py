"""The one video track of an .mp4 or .mov whose tables tell of every packet, and whose edit list
shows them all.

Not plain are fragments, several video tracks or kinds of samples, chapters, encryption, boxes that
are not known here, and whatever does not fit exactly.
After ISO/IEC 14496-12 and Apple's QuickTime File Format.
"""
import functools
import struct
from typing import NamedTuple

import numpy

from engine.video.track import Track, must

# Boxes that may stand in another; of those with a star there is one.
INSIDE = {
    'file': 'ftyp* moov* mdat free skip wide', 'moov': 'mvhd* trak udta meta iods free skip',
    'trak': 'tkhd* mdia* edts udta tref tapt meta free skip', 'edts': 'elst*', 'tref': 'tmcd cdsc',
    'mdia': 'mdhd* hdlr* minf* elng', 'minf': 'dinf* stbl* vmhd smhd nmhd gmhd hdlr',
    'dinf': 'dref*',
    'stbl': 'stsd* stts* stsc* stsz* stco co64 stss ctts sdtp cslg free skip',
    **{kind: f'{config}* pasp btrt colr fiel clap' for kind, config in
       (('avc1', 'avcC'), ('hvc1', 'hvcC'), ('hev1', 'hvcC'), ('mp4v', 'esds'))}}
SOUND = ' sgpd sbgp'  # besides, in tables of what is not video
NESTED = ('moov', 'edts', 'tref', 'mdia', 'minf', 'dinf')
CODECS = {b'avc1': ('h264', 'avcC'), b'hvc1': ('hevc', 'hvcC'), b'hev1': ('hevc', 'hvcC'),
          b'mp4v': ('mpeg4', 'esds')}
# Bytes of a sample's description before its boxes, and of what may differ in two alike.
ENTRY, RATES = 86, ('btrt',)
MATRIX = 44  # bytes at a track header's end: how it is turned, and its size
MOST_RATE, MOST_TICKS, MOST_BOXES, MOST_SAMPLES = 1 << 24, 1 << 28, 1 << 10, 1 << 22


class Box(NamedTuple):
    """A box's name, where its content begins and ends, and the boxes in it, by their names."""
    name: str
    begin: int
    end: int
    boxes: dict

    def one(self, *path):
        """The one box at a path of names."""
        found = self
        for name in path:
            must(len(found.boxes.get(name, ())) == 1)
            found = found.boxes[name][0]
        return found


def track_of(data):
    """The Track of a file's bytes; raises Odd, ValueError or struct.error where it is not
    plain."""
    must(data[4:8] == b'ftyp')
    whole = Box('file', 0, len(data), _boxes(data, 'file', 0, len(data), INSIDE['file']))
    movie = whole.one('moov')
    places = [(box.begin, box.end) for box in whole.boxes.get('mdat', ())]
    videos, lengths = [], []
    for track in movie.boxes['trak']:
        begin, end = track.begin, track.end
        track = track._replace(boxes=_boxes(data, 'trak', begin, end, INSIDE['trak']))
        begin = track.one('mdia', 'hdlr').begin
        is_video = data[begin + 8:begin + 12] == b'vide'
        table = track.one('mdia', 'minf', 'stbl')
        table = table._replace(boxes=_boxes(data, 'stbl', table.begin, table.end,
                                            INSIDE['stbl'] + SOUND * (not is_video)))
        reference = track.one('mdia', 'minf', 'dinf', 'dref')
        must(data[reference.begin:reference.end][:12] == struct.pack('>III', 0, 1, 12)
             and data[reference.begin + 16:reference.end] == b'\0\0\0\1')  # this file
        begins, ends = _samples(data, table)
        _check_within(begins, ends, places)
        times = _table(data, table.one('stts'), '>u4', 2)
        lengths.append(times.prod(axis=1).sum() / _unit(data, track.one('mdia', 'mdhd'))[0])
        if is_video:
            videos.append((track, table, begins, ends))
    must(len(videos) == 1)
    unit, promised = _unit(data, movie.one('mvhd'))
    must(promised / unit < 1.05 * max(lengths) + 1)  # else something is missing
    return _video(data, whole, *videos[0])


def _boxes(data, name, begin, end, names):
    """{name: [Box]} of what fills a box exactly."""
    known, found = names.replace('*', '').split(), {}
    while begin < end:
        size, kind = struct.unpack_from('>I4s', data, begin)
        kind, head = kind.decode('ascii'), 8
        if size == 1:
            size, head = struct.unpack_from('>Q', data, begin + 8)[0], 16
        must(kind in known and head <= size <= end - begin)
        inside = (_boxes(data, kind, begin + head, begin + size, INSIDE[kind])
                  if kind in NESTED else {})
        found.setdefault(kind, []).append(Box(kind, begin + head, begin + size, inside))
        must(len(found[kind]) <= MOST_BOXES)
        begin += size
    must(all(len(found.get(kind[:4], ())) == 1 for kind in names.split() if kind[4:]))
    return found


# ------------------------------------------------------------------------- its tables

def _table(data, box, dtype, columns):
    """(n, columns), the rows of a table that fills its box."""
    head, count = struct.unpack_from('>II', data, box.begin)
    dtype = numpy.dtype(dtype)
    must(box.end - box.begin == 8 + count * columns * dtype.itemsize)
    must(head in (0, 1 << 24))
    return numpy.frombuffer(data, dtype, count * columns, box.begin + 8).reshape(
        count, columns).astype(numpy.int64)


def _samples(data, table):
    """(n,), (n,), where each sample of a track begins and ends; or each chunk of them, where all
    are of one size, as single sounds are."""
    box = table.one('stsz')
    _, size, count = struct.unpack_from('>III', data, box.begin)
    must(0 < count and box.end - box.begin == 12 + 4 * count * (not size)
         and (count * size <= len(data) if size else count <= MOST_SAMPLES))
    wide = 'co64' in table.boxes
    must(wide != ('stco' in table.boxes))
    chunks = _table(data, table.one('co64' if wide else 'stco'), '>u8' if wide else '>u4', 1)[:, 0]
    runs = _table(data, table.one('stsc'), '>u4', 3)
    must(len(runs) and runs[0, 0] == 1 and (numpy.diff(runs[:, 0]) > 0).all()
         and runs[-1, 0] <= len(chunks) and (runs[:, 2] == 1).all())
    lengths = numpy.repeat(runs[:, 1], numpy.diff(runs[:, 0], append=len(chunks) + 1))
    must(lengths.sum() == count and lengths.all())
    must(_table(data, table.one('stts'), '>u4', 2)[:, 0].sum() == count)
    if size:
        return chunks, chunks + lengths * size
    sizes = numpy.frombuffer(data, '>u4', count, box.begin + 12).astype(numpy.int64)
    before = sizes.cumsum() - sizes
    begins = numpy.repeat(chunks - before[lengths.cumsum() - lengths], lengths) + before
    return begins, begins + sizes


def _check_within(begins, ends, places):
    """Whether all samples lie where the file keeps such."""
    inside = numpy.zeros(len(begins), bool)
    for begin, end in places:
        inside |= (begins >= begin) & (ends <= end)
    must(inside.all())


def _shown_at(data, table, count):
    """(n,), when each sample is shown, in the track's own unit."""
    times = _table(data, table.one('stts'), '>u4', 2)
    must(times[:, 0].sum() == count and ((times[:, 1] > 0) & (times[:, 1] < MOST_TICKS)).all())
    lengths = numpy.repeat(times[:, 1], times[:, 0])
    shown = lengths.cumsum() - lengths
    if 'ctts' in table.boxes:
        offsets = _table(data, table.one('ctts'), '>i4', 2)
        must(offsets[:, 0].sum() == count and (offsets[:, 0] > 0).all()
             and (abs(offsets[:, 1]) < MOST_TICKS).all())
        shown = shown + numpy.repeat(offsets[:, 1], offsets[:, 0])
    return shown


# -------------------------------------------------------------------------- its video

def _unit(data, box):
    """Ticks a second, and how many a header of a movie or a track's medium promises."""
    version = data[box.begin]
    must(version in (0, 1))
    found = struct.unpack_from('>IQ' if version else '>II', data, box.begin + (20 if version
                                                                               else 12))
    must(0 < found[0] <= MOST_RATE)
    return found


def _video(data, whole, track, table, begins, ends):
    movie = whole.one('moov')
    must((begins < ends).all() and (begins[1:] >= ends[:-1]).all())
    shown = _shown_at(data, table, len(begins))
    if 'edts' in track.boxes:
        _check_edits(data, track.one('edts', 'elst'), shown, _unit(data, movie.one('mvhd'))[0],
                     _unit(data, track.one('mdia', 'mdhd'))[0])
    if 'stss' in table.boxes:
        must(_table(data, table.one('stss'), '>u4', 1)[0, 0] == 1)
    codec, config, description = _description(data, table.one('stsd'))
    header = data[track.one('tkhd').end - MATRIX:track.one('tkhd').end]
    width, height = struct.unpack_from('>HH', description, 32)
    kept = _kept(data, whole, track)
    return Track(codec, config, width, height, begins, ends,
                 (kept['ftyp'], description, header),
                 functools.partial(_wrapped, kept, description))


def _check_edits(data, box, shown, unit, own):
    """Whether an edit list shows all there is, maybe after a pause, at its own speed."""
    version = data[box.begin]
    must(version in (0, 1))
    head, count = struct.unpack_from('>II', data, box.begin)
    row = struct.Struct('>QqI' if version else '>IiI')
    must(head == version << 24 and box.end - box.begin == 8 + count * row.size)
    edits = [row.unpack_from(data, box.begin + 8 + number * row.size) for number in range(count)]
    if len(edits) > 1 and edits[0][1] == -1:
        del edits[0]
    must(len(edits) == 1)
    (length, begin, speed), = edits
    must(speed == 1 << 16 and 0 <= begin <= shown.min()
         and shown.max() + 1 < begin + length * own // unit)


def _description(data, box):
    """(codec, its configuration, the description of its samples without their rates)."""
    head, count, size, kind = struct.unpack_from('>III4s', data, box.begin)
    must(head == 0 and count == 1 and size == box.end - box.begin - 8 and kind in CODECS)
    codec, name = CODECS[kind]
    begin, end = box.begin + 8, box.end
    inside = _boxes(data, 'entry', begin + ENTRY, end, INSIDE[kind.decode()])
    must(data[begin + 8:begin + 16] == bytes(7) + b'\1')
    kept = {part.name: data[part.begin:part.end] for parts in inside.values() for part in parts
            if part.name not in RATES}
    config = kept[name]
    if name == 'esds':
        kept[name], config = _elementary(config)
    return codec, config, data[begin:begin + ENTRY] + b''.join(
        _box(name, content) for name, content in kept.items())


def _elementary(content):
    """(a description of a stream of MPEG-4 Part 2, its rates of bits as 0; its headers)."""
    at, ends = 4, [len(content)]
    must(content[:4] == bytes(4))
    for kind, size in ((3, 3), (4, 13), (5, 0)):
        must(content[at] == kind)
        length, at = 0, at + 1
        while content[at] & 128:
            length, at = (length | content[at] & 127) << 7, at + 1
        length, at = length | content[at], at + 1
        must(size < length <= ends[-1] - at)
        ends.append(at + length)
        if kind == 3:
            must(content[at + 2] & 0xe0 == 0)  # nothing elsewhere
        elif kind == 4:
            must(content[at] == 0x20)
            content = content[:at + 2] + bytes(11) + content[at + 13:]
        at += size
    must(ends[-1] == ends[-2])
    return content, content[at:ends[-1]]


# ----------------------------------------------------------------------- another such file

def _box(name, *content):
    content = b''.join(content)
    return struct.pack('>I4s', 8 + len(content), name.encode()) + content


def _kept(data, whole, track):
    """{name: bytes} of the boxes that stand in another file too."""
    kept = {'ftyp': whole.one('ftyp'), 'mvhd': whole.one('moov', 'mvhd'),
            'tkhd': track.one('tkhd')}
    kept.update({name: track.one('mdia', name) for name in ('mdhd', 'hdlr')})
    kept.update({name: track.one('mdia', 'minf', name) for name in ('vmhd', 'dinf')})
    return {name: _box(name, data[box.begin:box.end]) for name, box in kept.items()}


def _wrapped(kept, description, packets):
    """A file of such a track with these packets, a tick apart."""
    count, medium = len(packets), _box('mdat', *packets)

    def table(name, *rows):
        return _box(name, struct.pack(f'>{1 + len(rows)}I', 0, *rows))
    samples = _box('stbl', _box('stsd', struct.pack('>III', 0, 1, len(description)),
                                description[4:]),
                   table('stts', 1, count, 1), table('stsc', 1, 1, count, 1),
                   table('stsz', 0, count, *map(len, packets)),
                   table('stco', 1, len(kept['ftyp']) + 8))
    minf = _box('minf', kept['vmhd'], kept['dinf'], samples)
    track = _box('trak', kept['tkhd'], _box('mdia', kept['mdhd'], kept['hdlr'], minf))
    return kept['ftyp'] + medium + _box('moov', kept['mvhd'], track)
