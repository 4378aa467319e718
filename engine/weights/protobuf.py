"""Protocol buffers messages (Caffe, ONNX) field by field, without their descriptions.

A message is read where it lies: what has a length is given as a view, so that half a gigabyte
of numbers is never copied.
"""
import struct


def fields(data):
    """Gives (number, value) of every field of a message.

    Args:
        data: memoryview. A value is an int, or a memoryview for what has a length.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = divmod(tag, 8)
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(kind, -1)
        if kind == 2:
            length, at = _varint(data, at)
        if length < 0 or at + length > len(data):
            raise ValueError('a field goes on past the end')
        yield number, data[at:at + length]
        at += length


def _varint(data, at):
    """Returns (number, the place behind it)."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError('a number of more than 64 bits')


class Messages:
    """Reads the messages of one file, all against one Budget."""

    def __init__(self, budget):
        self._budget = budget

    def grouped(self, data):
        """{field number: [values]} of a message."""
        found = {}
        for number, value in fields(data):
            self._budget.take(objects=1)
            found.setdefault(number, []).append(value)
        return found

    def packed(self, values):
        """A repeated integer field, packed or not, as a list of int."""
        found = []
        for value in values:
            if isinstance(value, int):
                found.append(value)
                continue
            at = 0
            while at < len(value):
                self._budget.take(objects=1)
                number, at = _varint(value, at)
                found.append(number)
        return found


def text(value):
    return bytes(value).decode()


def signed(value):
    """The number below zero, too, that a varint of 64 bits stands for."""
    return value - (value >> 63 << 64)


def real(value):
    """The number in four bytes."""
    return struct.unpack('<f', value)[0]
