"""MPEG-4 Part 2 without decoding it: whether each packet is one picture that a decoder will show,
in which order they are shown, and from which ones on nothing before them is needed.

Not plain are a packet that is empty, not coded or of two pictures, headers that change, and
B-frames whose times, or whose headers, would have a decoder leave one out. What is damaged within
a picture shows only when that is decoded; it is a frame still.
After ISO/IEC 14496-2, 6.2.2 to 6.2.5.
"""
import functools
import re
from typing import NamedTuple

from engine.video.track import must

# Start codes: of any header, of a picture, and of a time that may stand before it (7 bytes).
START, PICTURE, TIME = b'\0\0\1', b'\0\0\1\xb6', b'\0\0\1\xb3'

# A key frame's headers: profile, object, layer, and what the encoder calls itself.
HEADERS = re.compile(rb'(?:\0\0\x01\xb0[\x01-\x0f\xf0-\xf5])?(?:\0\0\x01\xb5[^\0]{1,3})?'
                     rb'(?:\0\0\x01[\0-\x1f])?\0\0\x01[\x20-\x2f]'
                     rb'(?P<layer>(?:(?!\0\0\x01).){9,40})(?:\0\0\x01\xb2[^\0]{0,60})?', re.DOTALL)
# Bits of a layer: simple or advanced simple; version; pixels; whether pictures are shown as they
# come, buffers; rectangle, ticks a second.
LAYER = re.compile('.(00000001|00010001)(0|1(?P<version>.{4}).{3})((?!1111).{4}|1111.{16})'
                   '(0|1..(?P<direct>.)(0|1.{79}))001(?P<ticks>.{16})1')
# What follows: frame rate, width and height, interlaced, no sprite, 8 bits, quantizer's kind, no
# estimates, one partition, one layer. Two more bits here and there since version 2.
FIRST = '(0|1.{%d})1.{13}1.{13}1(?P<interlaced>.)100(0|100)1.00'
SECOND = '(0|1.{%d})1.{13}1.{13}1(?P<interlaced>.)1000(0|100).1.0000'
# Bits of a picture, I, P or B: seconds, ticks, coded; rounding, thresholds, fields, scale, reach.
BITS = ('(?:(?P<P>01)|(?P<B>10)|00)(?P<seconds>1*)01(?P<ticks>.{%d})11(?(P).)...%s(?!00000).{5}'
        '(?(P)(?!000)...)(?(B)(?!000)...(?!000)...)')
# Bits of a time: hours, minutes, seconds.
CLOCK = re.compile('(?P<hours>.{5})(?P<minutes>.{6})1(?P<seconds>.{6})')
# Ticks between two pictures that a decoder takes for their distance.
MOST_TICKS = 1 << 16


class Layer(NamedTuple):
    """The pattern of bits with which each picture begins, ticks a second, and whether B-frames
    are shown in their place."""
    picture: re.Pattern
    ticks: int
    between: bool


def pictures(config, width, height, packets):
    """(numbers of the packets in the order in which they are shown, those of the packets from
    which on nothing before them is needed, whether no other needs it of each, the headers).

    Args:
        config: the headers; b'' where the first packet begins with them.
        packets: bytes of each, in the order of decoding; headers in them are all equal.

    Raises:
        Odd, ValueError: not plain.
    """
    first = config or _parted(packets[0])[0]
    layer = _layer(first)
    found, headed = [], []
    for packet in packets:
        headers, time, picture = _parted(packet)
        bits = f'{int.from_bytes(picture[:16].ljust(16, bytes(1)), "big"):0128b}'
        found.append((time, layer.picture.match(bits)))
        must(headers in (b'', first) and found[-1][1] and START not in picture)
        headed.append(bool(headers))
    kinds = ''.join(bits['P'] and 'P' or bits['B'] and 'B' or 'I' for _, bits in found)
    must(kinds[0] == 'I' and all(kind == 'I' for kind, has in zip(kinds, headed) if has))
    if 'B' in kinds:
        must(layer.between and 'B' not in kinds[:2])
        _check_times(found, layer.ticks)
    # behind damage that it does not tell of, what ffmpeg shows depends on all that came before
    keys = [0] if config or 'B' in kinds else [number for number, has in enumerate(headed) if has]
    must(keys[0] == 0)
    return _shown(kinds), keys, [False] * len(kinds), first


def _parted(packet):
    """What a packet has before its picture's start code, the time that may stand there, and what
    follows."""
    before, _, picture = packet.partition(PICTURE)
    return ((before[:-7], before[-3:], picture) if before[-7:-3] == TIME
            else (before, b'', picture))


def _shown(kinds):
    """Numbers of pictures in the order in which they are shown: a B-frame before the picture of
    another kind that came last."""
    shown, waiting = [], None
    for number, kind in enumerate(kinds):
        if kind == 'B':
            shown.append(number)
        else:
            shown += [] if waiting is None else [waiting]
            waiting = number
    return shown + [waiting]


def _check_times(found, ticks):
    """Whether each B-frame's time is between those of its neighbours; else it is left out."""
    base = before = last = apart = 0
    for time, bits in found:
        if time:
            clock = CLOCK.match(f'{int.from_bytes(time, "big"):024b}')
            must(clock)
            hours, minutes, seconds = (int(number, 2) for number in clock.groups())
            base = 3600 * hours + 60 * minutes + seconds
        if bits['B']:
            now = (before + len(bits['seconds'])) * ticks + int(bits['ticks'], 2)
            must(0 < apart - (last - now) < apart < MOST_TICKS)
        else:
            before, base = base, base + len(bits['seconds'])
            now = base * ticks + int(bits['ticks'], 2)
            apart, last = now - last, now


@functools.lru_cache(16)
def _layer(headers):
    """The Layer that these headers tell of."""
    found = HEADERS.fullmatch(headers)
    must(found)
    bits = f'{int.from_bytes(found["layer"], "big"):0{8 * len(found["layer"])}b}'
    layer = LAYER.match(bits)
    must(layer)
    ticks = int(layer['ticks'], 2)
    width = max(1, (ticks - 1).bit_length())
    rest = FIRST if layer['version'] in (None, '0001') else SECOND
    rest = re.compile(rest % width).match(bits, layer.end())
    must(rest and ticks)
    fields = rest['interlaced'] == '1'
    # DivX may have put two pictures in a packet, and an empty one behind it
    between = layer['direct'] == '0' and not fields and b'DivX' not in headers
    return Layer(re.compile(BITS % (width, '..' * fields)), ticks, between)
