"""HEVC without decoding it: whether each packet is one picture that a decoder will show, in which
order they are shown, and from which ones on nothing before them is needed.

Read are the parameter sets and the headers of slices, whole, as for H.264. Plain is one slice a
picture, progressive, one layer; not plain are tiles, long-term references, matrices of its own,
extensions, and a picture that leads in one from which a decoder began. What is damaged behind the
headers shows only when it is decoded; that is a picture still.
After ITU-T H.265, 7.3 (syntax), 7.4.8 (sets of references), 8.3.1 (order), C.5.2 (how many
pictures wait to be shown).
"""
import functools
import struct
from typing import NamedTuple

from engine.video.expgolomb import Reader, in_order
from engine.video.track import must

# Kinds of units: pictures that no other needs are even ones up to 8; leading ones; key ones, of
# which the last may have leading ones that need what comes before it.
LAST_USUAL, LEADING, SKIPPED, KEYS, OPEN = 9, (6, 7, 8, 9), (8, 9), (19, 20), 21
VIDEO, SEQUENCE, PICTURE, BEFORE, AFTER = 32, 33, 34, (35, 38, 39), (38, 40)
# Bytes of a slice of which its header may be.
HEADER = 600


class Sequence(NamedTuple):
    """What a sequence parameter set says that is needed to read slices."""
    width: int
    height: int
    colours: bool
    least_quantizer: int
    order_bits: int
    waiting: int
    offsets: bool
    sets: tuple
    motion: bool
    rows: int


class Picture(NamedTuple):
    """What a picture parameter set says that is needed to read slices."""
    cabac: bool
    references: tuple
    quantizer: int
    colours: bool
    weighted: tuple
    rows: bool
    across: bool
    deblocking: tuple


class Slice(NamedTuple):
    """A picture's kind of unit, which layer of time it is of, the low bits of its order, and how
    far from it those are that are kept for it and others."""
    kind: int
    layer: int
    order: int
    kept: tuple


def pictures(config, width, height, packets):
    """What h264.pictures returns of H.264, of HEVC; raises Odd, ValueError or IndexError where it
    is not plain."""
    sequence, sets, raw = _configured(config)
    must((sequence.width, sequence.height) == (width, height))
    slices = [_picture_of(packet, sequence, sets, raw) for packet in packets]
    kinds = [found.kind for found in slices]
    must(kinds[0] in KEYS)
    _check_leading(kinds)
    orders = _orders(slices, sequence.order_bits)
    _check_kept(slices, orders)
    shown = in_order(orders, [kind in KEYS for kind in kinds], sequence.waiting)
    last = max(found.layer for found in slices)
    idle = [found.kind <= 8 and found.kind % 2 == 0 and found.layer == last for found in slices]
    return shown, [number for number, kind in enumerate(kinds) if kind in KEYS], idle, b''


def _check_leading(kinds):
    """Whether none leads that a decoder would skip."""
    key = None
    for kind in kinds:
        if kind > LAST_USUAL:
            key = kind
        must(kind not in SKIPPED or key == OPEN)


def _orders(slices, bits):
    """The order count of each picture since the last key picture."""
    orders, most, before = [], 1 << bits, 0
    for found in slices:
        if found.kind in KEYS:
            order = 0
        else:
            low = before % most
            turn = ((found.order < low and low - found.order >= most // 2)
                    - (found.order > low and found.order - low > most // 2))
            order = before - low + most * turn + found.order
        orders.append(order)
        if found.layer == 0 and found.kind not in LEADING and found.kind not in (0, 2, 4):
            before = order
    return orders


def _check_kept(slices, orders):
    """Whether each picture finds what is kept for it; else it is left out."""
    kept = set()
    for found, order in zip(slices, orders):
        wanted = {order + distance for distance in found.kept}
        must(wanted <= kept)
        kept = wanted | {order}


# ------------------------------------------------------------------------------ a packet

def _picture_of(packet, sequence, sets, raw):
    """The one Slice of a packet."""
    found, at = None, 0
    must(len(packet) < 1 << 24)
    while at < len(packet):
        size = int.from_bytes(packet[at:at + 4], 'big')
        unit = packet[at + 4:at + 4 + size]
        must(size > 2 and len(unit) == size and b'\0\0\1' not in unit)
        at += 4 + size
        kind, layer = _kind_of(unit)
        if kind <= LAST_USUAL or kind in (*KEYS, OPEN):
            must(not found)
            found = _slice(unit, kind, layer, sequence, sets)
        else:
            must(kind in AFTER if found else kind in BEFORE or unit in raw)
    must(found)
    return found


def _kind_of(unit):
    """Kind of a unit, of the base layer, and its layer of time."""
    must(unit[0] < 128 and unit[0] & 1 == 0 and unit[1] < 8 and unit[1])
    return unit[0] >> 1, unit[1] - 1


def _slice(unit, kind, layer, sequence, sets):
    key = kind > LAST_USUAL
    read = Reader(unit[2:HEADER])
    must(read.take(1) == 1)
    must(not key or read.take(1) == 0)  # those before are shown
    used = sets[read.code(63)]
    of = 'BPI'[read.code(2)]
    must(of == 'I' or not key)
    order, references, motion = 0, (), 0
    if kind not in KEYS:
        order = read.take(sequence.order_bits)
        references = _references(read, sequence)
        motion = read.take(1) if sequence.motion else 0
    must(of == 'I' or any(is_used for _, is_used in references))
    smooth = 0
    if sequence.offsets:
        smooth = read.take(1 + sequence.colours)
    if of != 'I':
        _skip_motion(read, of, used, motion, sequence.colours)
    quantizer = used.quantizer + read.signed()
    must(sequence.least_quantizer <= quantizer <= 51)
    if used.colours:
        must(abs(read.signed()) <= 12 and abs(read.signed()) <= 12)
    may_differ, off = used.deblocking
    if may_differ and read.take(1):
        off = read.take(1)
        must(off or abs(read.signed()) <= 6 and abs(read.signed()) <= 6)
    if used.across and (smooth or not off):
        read.take(1)
    if used.rows:
        count = read.code(sequence.rows - 1)
        if count:
            width = 1 + read.code(31)
            for _ in range(count):
                read.take(width)
    must(read.take(1) == 1)
    rest = -read.at % 8
    must(not rest or read.take(rest) == 0)
    return Slice(kind, layer, order, tuple(distance for distance, _ in references))


def _references(read, sequence):
    """The set of references of a slice, ((distance, whether it is used), ...)."""
    if not read.take(1):
        return _set(read, sequence.sets, True)
    count = len(sequence.sets)
    must(count)
    bits = (count - 1).bit_length()
    return sequence.sets[read.take(bits) if bits else 0]


def _set(read, sets, in_slice=False):
    """The next set of references after others."""
    if sets and read.take(1):
        other = sets[-1 - (read.code(len(sets) - 1) if in_slice else 0)]
        sign = read.take(1)
        shift = (1 + read.code(0x7fff)) * (-1 if sign else 1)
        found = []
        for distance, _ in (*other, (0, 0)):
            is_used = read.take(1)
            if is_used or read.take(1):
                found.append((distance + shift, is_used))
        must(all(distance for distance, _ in found))
    else:
        counts, found = (read.code(15), read.code(15)), []
        for count, sign in zip(counts, (-1, 1)):
            distance = 0
            for _ in range(count):
                distance += sign * (1 + read.code(0x7fff))
                found.append((distance, read.take(1)))
    # as they are counted in a set that is told by this one: those before, those behind
    before = sorted((pair for pair in found if pair[0] < 0), reverse=True)
    found = (*before, *sorted(pair for pair in found if pair[0] > 0))
    must(len(found) <= 16 and len(dict(found)) == len(found))
    return found


def _skip_motion(read, of, used, motion, colours):
    """Reads how many references there are, their weights, and what else is for prediction."""
    counts = used.references[:1 + (of == 'B')]
    if read.take(1):
        counts = [1 + read.code(14) for _ in counts]
    if of == 'B':
        read.take(1)
    if used.cabac:
        read.take(1)
    if motion:
        second = of == 'B' and read.take(1) == 0
        if counts[second] > 1:
            read.code(counts[second] - 1)
    if used.weighted[of == 'B']:
        scale = read.code(7)
        must(not colours or 0 <= scale + read.signed() <= 7)
        for count in counts:
            light = [read.take(1) for _ in range(count)]
            colour = [read.take(1) if colours else 0 for _ in range(count)]
            for has_light, has_colour in zip(light, colour):
                for most in has_light * [127, 127] + has_colour * [127, 511] * 2:
                    must(-most - 1 <= read.signed() <= most)
    read.code(4)


# ------------------------------------------------------------------------- parameter sets

@functools.lru_cache(64)
def _configured(config):
    """(Sequence, {number: Picture}, set of all parameter sets' bytes) of a decoder's configuration
    record, ISO/IEC 14496-15."""
    must(config[0] == 1 and config[21] & 3 == 3)
    at, units = 23, []
    for _ in range(config[22]):
        kind, count = struct.unpack_from('>BH', config, at)
        must(kind & 0x40 == 0 and kind & 63 in (VIDEO, SEQUENCE, PICTURE, 39, 40))
        at += 3
        for _ in range(count):
            size, = struct.unpack_from('>H', config, at)
            unit = config[at + 2:at + 2 + size]
            must(size > 2 and _kind_of(unit)[0] == kind & 63 and b'\0\0\1' not in unit)
            units.append((kind & 63, unit))
            at += 2 + size
    must(at == len(config))
    videos, sequences, found = ([unit for kind, unit in units if kind == wanted]
                                for wanted in (VIDEO, SEQUENCE, PICTURE))
    must(len(videos) == len(sequences) == 1)
    number, sequence = _sequence(sequences[0], _video(videos[0]))
    sets = dict(_picture(unit, number) for unit in found)
    must(len(sets) == len(found))
    return sequence, sets, frozenset([*videos, *sequences, *found])


def _video(unit):
    """The number of a set about the whole video: one layer."""
    read = Reader(unit[2:])
    number = read.take(4)
    must(read.take(8) == 0b11000000)
    layers = read.take(3)
    read.take(1)
    must(layers < 7 and read.take(16) == 0xffff)
    _skip_profile(read, layers)
    _waiting(read, layers)
    must(read.take(6) == 0 and read.code() == 0)
    if read.take(1):  # clock
        read.take(64)
        if read.take(1):
            read.code(1 << 32)
        must(read.code() == 0)  # no buffers
    must(read.take(1) == 0)  # no extension
    read.end()
    return number


def _sequence(unit, video):
    read = Reader(unit[2:])
    must(read.take(4) == video)
    layers = read.take(3)
    must(layers < 7)
    read.take(1)
    _skip_profile(read, layers)
    number, colours = read.code(15), read.code(2)
    width, height = read.code(), read.code()
    if read.take(1):
        left, right, top, bottom = [read.code() for _ in range(4)]
        width -= (left + right) * (2 if colours else 1)
        height_shown = height - (top + bottom) * (2 if colours == 1 else 1)
    else:
        height_shown = height
    must(width > 0 and height_shown > 0)
    more_bits = read.code(6)
    must(read.code(6) == more_bits)
    order_bits = 4 + read.code(12)
    waiting = _waiting(read, layers)
    block = 3 + read.code(3) + read.code(3)
    [read.code(5) for _ in range(4)]
    must(4 <= block <= 6 and read.take(1) == 0)  # no matrices of its own
    read.take(1)
    offsets = bool(read.take(1))
    if read.take(1):  # samples as they are
        read.take(8), read.code(3), read.code(3), read.take(1)
    sets = ()
    for _ in range(read.code(64)):
        sets += _set(read, sets),
    must(read.take(1) == 0)  # no long-term references
    motion = bool(read.take(1))
    read.take(1)
    if read.take(1):
        _skip_usability(read)
    must(read.take(1) == 0)  # no extension
    read.end()
    return number, Sequence(width, height_shown, colours > 0, -6 * more_bits, order_bits, waiting,
                            offsets, sets, motion, -(-height >> block))


def _skip_profile(read, layers):
    """Reads profile and level, of the whole and of layers of time."""
    read.take(96)
    told = [(read.take(1), read.take(1)) for _ in range(layers)]
    if layers:
        read.take(2 * (8 - layers))
    for profile, level in told:
        if profile or level:
            read.take(88 * profile + 8 * level)


def _waiting(read, layers):
    """How many pictures wait, where all layers of time are decoded."""
    for _ in range(1 + layers if read.take(1) else 1):
        held, waiting = read.code(15), read.code(15)
        read.code(1 << 32)
        must(waiting <= held)
    return waiting


def _skip_usability(read):
    """Reads what is told for whoever shows the video."""
    read.skip_looks()
    read.take(1)
    must(read.take(1) == 0)  # no fields
    read.take(1)
    must(read.take(1) == 0)  # no other window
    if read.take(1):  # clock
        read.take(64)
        if read.take(1):
            read.code(1 << 32)
        must(read.take(1) == 0)  # no buffers
    if read.take(1):
        read.take(3)
        for _ in range(5):
            read.code()


def _picture(unit, sequence):
    read = Reader(unit[2:])
    number = read.code(63)
    must(read.code(15) == sequence)
    read.take(1)
    must(read.take(4) == 0)  # no hidden pictures, no more bits in slices
    read.take(1)
    cabac = bool(read.take(1))
    references = 1 + read.code(14), 1 + read.code(14)
    quantizer = 26 + read.signed()
    read.take(2)
    if read.take(1):
        read.code(3)
    must(abs(read.signed()) <= 12 and abs(read.signed()) <= 12)
    colours = bool(read.take(1))
    weighted = bool(read.take(1)), bool(read.take(1))
    read.take(1)
    must(read.take(1) == 0)  # no tiles
    rows, across = bool(read.take(1)), bool(read.take(1))
    deblocking = 0, 0
    if read.take(1):
        deblocking = read.take(1), read.take(1)
        must(deblocking[1] or abs(read.signed()) <= 6 and abs(read.signed()) <= 6)
    must(read.take(2) == 0)  # no matrices of its own, no other order of references
    read.code(4)
    must(read.take(2) == 0)  # no more in slices, no extension
    read.end()
    return number, Picture(cabac, references, quantizer, colours, weighted, rows, across,
                           deblocking)
