"""MPEG-4 Part 2 without decoding it: whether each packet is one picture that a decoder will show,
in which order they are shown, and from which ones on nothing before them is needed.

Not plain are B-frames, a packet that is empty, not coded or of two pictures, fields of headers
that change. What is damaged within a picture shows only when that is decoded; it is a frame still.
After ISO/IEC 14496-2, 6.2.2 to 6.2.5.
"""
import functools
import re

from engine.video.track import must

# Start codes: of any header, of a picture, and of a time that may stand before it (7 bytes).
START, PICTURE, TIME = b'\0\0\1', b'\0\0\1\xb6', b'\0\0\1\xb3'

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


def pictures(config, width, height, packets):
    """(numbers of the packets in the order in which they are shown, those of the packets from
    which on nothing before them is needed, whether no other needs it of each, the headers).

    Args:
        packets: bytes of each; the first begins with the headers, those of others are equal.

    Raises:
        Odd, ValueError: not plain.
    """
    first, keys = packets[0].partition(PICTURE)[0], []
    first = first[:-7] if first[-7:-3] == TIME else first
    pattern = _picture(first)
    for number, packet in enumerate(packets):
        before, _, picture = packet.partition(PICTURE)
        headers = before[:-7] if before[-7:-3] == TIME else before
        bits = f'{int.from_bytes(picture[:16].ljust(16, bytes(1)), "big"):0128b}'
        must(headers in (b'', first) and pattern.match(bits) and START not in picture)
        if headers:
            keys.append(number)
            must(bits[:2] == '00')
    return list(range(len(packets))), keys, [False] * len(packets), first


@functools.lru_cache(16)
def _picture(headers):
    """The pattern of bits with which each picture begins, after these headers."""
    found = HEADERS.fullmatch(headers)
    must(found)
    bits = f'{int.from_bytes(found["layer"], "big"):0{8 * len(found["layer"])}b}'
    layer = LAYER.match(bits)
    must(layer)
    ticks = max(1, (int(layer['ticks'], 2) - 1).bit_length())
    rest = FIRST if layer['version'] in (None, '0001') else SECOND
    rest = re.compile(rest % ticks).match(bits, layer.end())
    must(rest and int(layer['ticks'], 2))
    words = {'ticks': ticks, 'fields': '..' if rest['interlaced'] == '1' else ''}
    return re.compile('00' + COMMON % {**words, 'rounding': ''} + '|01' + COMMON
                      % {**words, 'rounding': '.'} + '(?!000)...')
