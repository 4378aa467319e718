"""Large arrays that serve again: fresh memory costs as much as simple arithmetic on it."""
import collections
import threading

import numpy

# Bytes, given back before. Forgets the oldest, so that sizes that change do not heap up.
_spare = collections.deque(maxlen=64)
_returned = collections.deque(maxlen=64)  # of `lend`, from any thread, at any moment
_lock = threading.Lock()


def empty(shape, dtype=numpy.float32):
    """numpy.empty at a multiple of 64 bytes, so that no vector straddles two cache lines."""
    return _array(numpy.empty(_size(shape, dtype), numpy.uint8), shape, dtype)


def borrow(shape, dtype=numpy.float32):
    """empty(shape, dtype), if possible in memory given back before."""
    size = _size(shape, dtype)
    with _lock:
        while _returned:
            _spare.append(_returned.popleft())
        # A last batch is smaller than the others; it takes the memory of theirs.
        fitting = [k for k, spare in enumerate(_spare) if size <= len(spare) <= 2 * size]
        if not fitting:
            return empty(shape, dtype)
        best = min(fitting, key=lambda k: len(_spare[k]))
        memory = _spare[best]
        del _spare[best]
    return _array(memory, shape, dtype)


class _Loan:
    """What a lent array is a view of."""

    def __init__(self, array):
        self.memory, self.__array_interface__ = array.base, array.__array_interface__

    def __del__(self):
        if _returned is not None:  # as it is when Python ends
            _returned.append(self.memory)  # and no lock, which the thread so interrupted may hold


def lend(shape, dtype=numpy.float32):
    """borrow(shape, dtype), which is back when nobody holds it, or a view of it, any more."""
    return numpy.asarray(_Loan(borrow(shape, dtype)))


def _size(shape, dtype):
    """Bytes that hold such an array, wherever in them the multiple of 64 is."""
    return int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize + 64


def _array(memory, shape, dtype):
    start = -memory.ctypes.data % 64
    return memory[start:start + _size(shape, dtype) - 64].view(dtype).reshape(shape)


def give_back(*buffers):
    """Takes what `borrow` gave, or views of it. None of it may be used any more."""
    with _lock:
        for buffer in buffers:
            memory = getattr(buffer, 'base', None)
            if isinstance(memory, numpy.ndarray) and memory.dtype == numpy.uint8:
                _spare.append(memory)
