"""H.264 without decoding it: whether each packet is one picture that a decoder will show, in which
order they are shown, and from which ones on nothing before them is needed.

Read are the parameter sets and the headers of slices, whole: where one of their numbers is out of
its range a decoder shows no picture. Plain is what cameras and x264 write, progressive; not plain
are fields, long-term references, several parameter sets, gaps in the numbers of pictures, or an
order that the decoder has not been told of. What is damaged behind the headers shows only when it
is decoded; that is a picture still.
After ITU-T H.264, 7.3 (syntax), 8.2.1 (order), C.4.5 (how many pictures wait to be shown).
"""
import functools
import re
import struct
from typing import NamedTuple

from engine.video.expgolomb import Reader, in_order, signed, value
from engine.video.track import must

# Baseline, main, high, with 10 bits, with half of the colours.
PROFILES, HIGH = (66, 77, 100, 110, 122), (100, 110, 122)
SLICE, KEY_SLICE, SEI, SEQUENCE, PICTURE, DELIMITER, FILLER = 1, 5, 6, 7, 8, 9, 12
# Kinds of slices by the code of their number, all alike in a picture or not.
KINDS = {'1': 'P', '00110': 'P', '010': 'B', '00111': 'B', '011': 'I', '0001000': 'I'}
# Bytes of a slice of which its header may be.
HEADER = 160


class Sequence(NamedTuple):
    """What a sequence parameter set says that is needed to read slices."""
    width: int
    height: int
    macroblocks: int
    colours: bool
    least_quantizer: int
    number_bits: int
    order_bits: int
    waiting: int


class Picture(NamedTuple):
    """What a picture parameter set says that is needed to read slices."""
    cabac: bool
    references: tuple
    weighted: tuple
    quantizer: int
    deblocking: bool


class Slice(NamedTuple):
    """A slice's first macroblock, kind of picture, number and order."""
    first: int
    key: bool
    reference: bool
    number: int
    order: int


def pictures(config, width, height, packets):
    """(numbers of the packets in the order in which they are shown, those of the packets from
    which on nothing before them is needed, whether no other needs it of each, b'': what else a
    decoder must be told).

    Only the first is such a packet, and all are needed: behind a damaged macroblock ffmpeg shows
    later pictures otherwise, even behind a key frame and where that picture is no reference, and
    whether any is damaged nobody knows who has not decoded them all.

    Args:
        config: the decoder's configuration record, ISO/IEC 14496-15.
        width, height: pixels that the container tells.
        packets: bytes of each, in the order of decoding.

    Raises:
        Odd, ValueError: not plain.
    """
    sequence, sets, raw = _configured(config)
    must((sequence.width, sequence.height) == (width, height))
    slices = [_picture_of(packet, sequence, sets, raw) for packet in packets]
    must(slices and slices[0].key)
    most, last = 1 << sequence.number_bits, 0
    for found in slices:
        must(found.number == (0 if found.key else (last + 1) % most))
        last = found.number if found.reference else last
    shown = in_order(_orders(slices, sequence.order_bits), [found.key for found in slices],
                     sequence.waiting)
    must(all(shown[number] == number for number, found in enumerate(slices) if found.key))
    return shown, [0], [False] * len(slices), b''


# ------------------------------------------------------------------- order of pictures

def _orders(slices, bits):
    """The order count of each picture since the last key picture."""
    if not bits:
        return list(range(len(slices)))
    orders, most, high, low = [], 1 << bits, 0, 0
    for found in slices:
        if found.key:
            high, low = 0, 0
        turn = ((found.order < low and low - found.order >= most // 2)
                - (found.order > low and found.order - low > most // 2))
        orders.append(high + most * turn + found.order)
        if found.reference:
            high, low = high + most * turn, found.order
    return orders


# ----------------------------------------------------------------------- a packet

def _picture_of(packet, sequence, sets, raw):
    """The first Slice of a packet of one picture."""
    first, last, at = None, -1, 0
    must(len(packet) < 1 << 24)
    while at < len(packet):
        size = int.from_bytes(packet[at:at + 4], 'big')
        unit = packet[at + 4:at + 4 + size]
        must(size and len(unit) == size and b'\0\0\1' not in unit)
        at += 4 + size
        kind = unit[0] & 31
        if kind in (SLICE, KEY_SLICE):
            found = _slice(unit, sequence, sets)
            must(last < found.first < sequence.macroblocks and (first or not found.first)
                 and (first or found)[1:] == found[1:])
            first, last = first or found, found.first
        elif kind != FILLER:
            must(not first and (kind in (SEI, DELIMITER) or unit in raw))
    must(first)
    return first


def _slice(unit, sequence, sets):
    key, reference = unit[0] & 31 == KEY_SLICE, bool(unit[0] & 96)
    must(unit[0] < 128 and reference >= key)
    head = unit[1:HEADER]
    if b'\0\0\3' in head:
        head = head.replace(b'\0\0\3', b'\0\0')
    bits = f'{int.from_bytes(head, "big"):0{8 * len(head)}b}'
    found = START.match(bits)
    must(found)
    kind, used = KINDS.get(found[2]), sets.get(value(found[3]))
    must(kind and used and (kind == 'I' or not key))
    about = _matched(_before_weights(kind, key, sequence), bits, found.end())
    at, lists = about.end(), {'I': 0, 'P': 1, 'B': 2}[kind]
    counts = [value(code) + 1 if code else usual for code, usual in
              zip(about.group('first', 'second')[:lists], used.references)]
    must(all(len(MOVED.findall(moves or '')) <= count for moves, count in
             zip(about.group('moves', 'more'), counts)))
    if lists and used.weighted[lists - 1]:
        at = _matched(_weights(sum(counts), sequence.colours), bits, at).end()
    rest = _matched(_after_weights(kind, key, reference, used, sequence.number_bits), bits, at)
    quantizer = used.quantizer + signed(value(rest['step']))
    must(sequence.least_quantizer <= quantizer <= 51)
    return Slice(value(found[1]), key, reference, int(about['number'], 2),
                 int(about['order'] or '0', 2))


def _matched(pattern, bits, at):
    found = pattern.match(bits, at)
    must(found)
    return found


def _codes(zeros):
    """The pattern of Exp-Golomb codes with up to so many zeros before the first one."""
    return '(?:' + '|'.join(f'{"0" * n}1{"." * n}' for n in range(zeros + 1)) + ')'


def _below(bits):
    """The pattern of Exp-Golomb codes of what is less than 2 to the power of so many bits."""
    return f'(?:{_codes(bits - 1)}|{"0" * bits}1{"0" * bits})'


START = re.compile(f'({_codes(15)})({_codes(3)})({_codes(7)})')
MOVED = re.compile(f'(?:1|010){_codes(16)}')  # one reference moved


@functools.lru_cache(64)
def _before_weights(kind, key, sequence):
    """The pattern of a slice's header behind its start, up to the weights of references."""
    moves, more = (f'(?:0|1(?P<{name}>(?:(?:1|010){_below(sequence.number_bits)})+)00100)'
                   for name in ('moves', 'more'))
    first, second = f'(?P<first>{_codes(3)})', f'(?P<second>{_codes(3)})'
    return re.compile(''.join([
        f'(?P<number>.{{{sequence.number_bits}}})', _codes(15) * key,
        f'(?P<order>.{{{sequence.order_bits}}})', '.' * (kind == 'B'),
        {'I': '(?P<first>)(?P<second>)(?P<moves>)(?P<more>)',
         'P': f'(?:0|1{first})(?P<second>){moves}(?P<more>)',
         'B': f'(?:0|1{first}{second}){moves}{more}'}[kind]]))


@functools.lru_cache(256)
def _weights(references, colours):
    scale = '(?:1|01.|001..|0001000)'
    number = f'(?:{_codes(7)}|00000000100000001)'  # from -128 to 127
    each = f'(?:0|1{number * 2})' + f'(?:0|1{number * 4})' * colours
    return re.compile(scale * (1 + colours) + f'(?:{each}){{{references}}}')


@functools.lru_cache(64)
def _after_weights(kind, key, reference, used, number_bits):
    six = '(?:1|01.|001..|0001(?!11)...)'  # from -6 to 6
    return re.compile(''.join([
        ('00' if key else f'(?:0|1(?:010{_below(number_bits)})*1)') * reference,
        '(?:1|010|011)' * (used.cabac and kind != 'I'), f'(?P<step>{_codes(6)})',
        f'(?:010|(?:1|011){six}{six})' * used.deblocking]))


# ----------------------------------------------------------------------- parameter sets

@functools.lru_cache(64)
def _configured(config):
    """(Sequence, {number: Picture}, set of all parameter sets' bytes) of a configuration."""
    must(config[0] == 1 and config[4] == 0xff and config[5] == 0xe1)
    size, = struct.unpack_from('>H', config, 6)
    raw, at = [config[8:8 + size]], 8 + size
    count, at = config[at], at + 1
    for _ in range(count):
        size, = struct.unpack_from('>H', config, at)
        raw.append(config[at + 2:at + 2 + size])
        at += 2 + size
    rest = config[at:]
    must(not rest or len(rest) == 4 and config[1] in HIGH and rest[3] == 0)
    must(all(unit and unit[0] & 159 == kind and b'\0\0\1' not in unit
             for unit, kind in zip(raw, [SEQUENCE] + [PICTURE] * count)))
    must(raw[0][1:4] == config[1:4])
    number, sequence = _sequence(raw[0])
    sets = dict(_picture(unit, number) for unit in raw[1:])
    must(len(sets) == count)
    return sequence, sets, frozenset(raw)


def _sequence(unit):
    read = Reader(unit[1:])
    profile = read.take(8)
    must(profile in PROFILES)
    read.take(16)
    number, colours, more_bits = read.code(31), 1, 0
    if profile in HIGH:
        colours = read.code(2)
        more_bits = read.code(6)
        must(read.code(6) == more_bits)
        must(read.take(2) == 0)  # no lossless coding, no matrices of its own
    number_bits = 4 + read.code(12)
    kind = read.code(2)
    must(kind != 1)
    order_bits = 4 + read.code(12) if kind == 0 else 0
    read.code(16)
    must(read.take(1) == 0)  # no gaps
    across, down = 1 + read.code(), 1 + read.code()
    must(read.take(1) == 1)  # no fields
    read.take(1)
    left, right, top, bottom = [read.code() for _ in range(4)] if read.take(1) else [0] * 4
    width = 16 * across - (left + right) * (1 if colours == 0 else 2)
    height = 16 * down - (top + bottom) * (2 if colours == 1 else 1)
    must(width > 0 and height > 0)
    waiting = _waiting(read) if read.take(1) else 0
    read.end()
    return number, Sequence(width, height, across * down, colours > 0, -6 * more_bits, number_bits,
                            order_bits, waiting)


def _waiting(read):
    """How many pictures wait, in what a set says for whoever shows the video; 0 where it does
    not."""
    read.skip_looks()
    if read.take(1):  # clock
        read.take(65)
    buffers = [read.take(1) and _skip_buffer(read) for _ in range(2)]
    if any(buffers):
        read.take(1)
    read.take(1)
    if not read.take(1):
        return 0
    read.take(1)
    for _ in range(4):
        read.code()
    waiting, held = read.code(16), read.code(16)
    must(waiting <= held)
    return waiting


def _skip_buffer(read):
    count = 1 + read.code(31)
    read.take(8)
    for _ in range(count):
        read.code(1 << 32), read.code(1 << 32), read.take(1)
    read.take(20)
    return True


def _picture(unit, sequence):
    read = Reader(unit[1:])
    number = read.code(255)
    must(read.code(31) == sequence)
    cabac = bool(read.take(1))
    must(read.take(1) == 0)  # no orders of fields
    must(read.code() == 0)  # no groups of slices
    references = 1 + read.code(15), 1 + read.code(15)
    weighted = bool(read.take(1)), read.take(2) == 1
    quantizer = 26 + read.signed()
    read.signed(), read.signed()
    deblocking = bool(read.take(1))
    read.take(1)
    must(read.take(1) == 0)  # no pictures that are sent twice
    if read.bits[read.at:].rstrip('0') != '1':
        read.take(1)
        must(read.take(1) == 0)  # no matrices of its own
        read.signed()
    read.end()
    return number, Picture(cabac, references, weighted, quantizer, deblocking)
