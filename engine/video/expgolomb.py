"""Exp-Golomb codes, of which H.264 and HEVC make their headers, and the order in which both show
what they have decoded."""
import heapq

from engine.video.track import must


def value(code):
    """The number of an Exp-Golomb code."""
    return int(code, 2) - 1


def signed(number):
    """What the number of a code stands for where it has a sign: 1, -1, 2, -2 ..."""
    return number // 2 + 1 if number % 2 else -number // 2


class Reader:
    """The numbers in a unit of a stream, behind its own header, one after the other."""

    def __init__(self, content):
        data = content.replace(b'\0\0\3', b'\0\0')
        self.bits, self.at = f'{int.from_bytes(data, "big"):0{8 * len(data)}b}', 0

    def take(self, bits):
        self.at += bits
        must(self.at <= len(self.bits))
        return int(self.bits[self.at - bits:self.at], 2)

    def code(self, most=1 << 16):
        zeros = self.bits.index('1', self.at) - self.at
        self.at += zeros
        found = self.take(zeros + 1) - 1
        must(found <= most)
        return found

    def signed(self):
        return signed(self.code())

    def skip_looks(self):
        """Reads how pixels and colours look, with which both begin what they tell whoever shows
        the video."""
        if self.take(1) and self.take(8) == 255:  # shape of pixels
            self.take(32)
        if self.take(1):  # overscan
            self.take(1)
        if self.take(1):  # kinds of signal and colours
            self.take(4)
            if self.take(1):
                self.take(24)
        if self.take(1):  # where the colours are sampled
            self.code(5), self.code(5)

    def end(self):
        must(self.bits[self.at:].rstrip('0') == '1')


def in_order(orders, keys, waiting):
    """Numbers of pictures as a decoder shows them that lets so many wait.

    Args:
        orders: what the order of each is told by, since the last key picture.
        keys: whether each is such a one: all before are shown first.

    Raises:
        Odd: one would come too late, and be left out.
    """
    shown, heap, last = [], [], None

    def show():
        nonlocal last
        order, number = heapq.heappop(heap)
        must(last is None or order > last)
        last = order
        shown.append(number)
    for number, (order, key) in enumerate(zip(orders, keys)):
        if key:
            while heap:
                show()
            last = None
        heapq.heappush(heap, (order, number))
        if len(heap) > waiting:
            show()
    while heap:
        show()
    return shown
