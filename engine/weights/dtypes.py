"""Numbers as they lie in files: NumPy's dtypes, and bfloat16, which NumPy lacks."""
import numpy

BFLOAT16 = 'bfloat16'


def itemsize(dtype):
    """Bytes of one number; `dtype` is NumPy's, or BFLOAT16."""
    return 2 if dtype == BFLOAT16 else numpy.dtype(dtype).itemsize


def numbers(data, dtype, count=-1, offset=0, order='<'):
    """(count,) array over bytes, in the file's own dtype; bfloat16 becomes float32.

    Args:
        data: bytes-like; count and offset (bytes) say which part of it, -1 up to its end.
        order: '<' or '>', the byte order there.
    """
    if dtype == BFLOAT16:  # the upper half of a float32
        halves = numpy.frombuffer(data, order + 'u2', count, offset)
        return (halves.astype('u4') << 16).view('f4')
    return numpy.frombuffer(data, numpy.dtype(dtype).newbyteorder(order), count, offset)
