"""recurrent.c: the steps of a window of an LSTM (engine/fast/lstm_window.py), on the CPU."""
import ctypes
import os

import numpy

from engine import usable_cores
from engine.fast import compiled

SWITCH = 'ENGINE_LSTM'  # compiled or numpy
LEAST_UNITS = 64  # of a thread: with fewer the threads wait for one another


class _Window(ctypes.Structure):
    # struct window of recurrent.c
    arrays = ('w_h', 'packed', 'b', 'z', 'gates', 'c', 'tanh_c', 'hs', 'h', 'exchange',
              'gy', 'gh', 'gc', 'mask', 'recurrent_mask')
    _fields_ = ([(name, ctypes.c_int64) for name in ('steps', 'batch', 'units', 'stride')]
                + [(name, ctypes.c_void_p) for name in arrays] + [('met', ctypes.c_long)])


def library_for(x, n_units):
    """The compiled steps where there are any that serve this input, (T, B, D), or None.

    Raises UserError where ENGINE_LSTM asks for what is not.
    """
    if not isinstance(x, numpy.ndarray) or x.dtype != numpy.float32 or n_units % 8:
        return None
    library = compiled.chosen('recurrent', SWITCH)
    if library is None:
        return None
    for call in (library.forward, library.backward):
        call.argtypes = [ctypes.POINTER(_Window), ctypes.c_int64]
        call.restype = None
    # A batch is filled up to whole vectors: not worth while for less than half of one.
    return library if os.environ.get(SWITCH) or 2 * x.shape[1] >= library.lanes() else None


def kernel_name():
    """What an LSTM would run on now on the CPU, for logs: see compiled.kernel_name."""
    return compiled.kernel_name('recurrent', SWITCH)


def whole_vectors(array, axis, library):
    """Adds zeros along an axis, the batch, to a multiple of the compiled steps' vectors."""
    rest = -array.shape[axis] % library.lanes() if library else 0
    if rest == 0:
        return array
    return numpy.pad(array, [(0, rest if k == axis else 0) for k in range(array.ndim)])


def run(call, stride, **arrays):
    """All steps of a window: call is library.forward or library.backward.

    Args:
        stride (int): numbers from a step's gates to the next step's, or 0.
        arrays: of struct window in recurrent.c, float32; those left out are null.
    """
    _, steps, batch = arrays['z'].shape
    units = arrays['w_h'].shape[1]
    arrays['packed'] = numpy.empty(arrays['w_h'].shape, numpy.float32)
    window = _Window(steps, batch, units, stride,
                     *(compiled.address(arrays.get(name)) for name in _Window.arrays))
    call(window, max(1, min(usable_cores(), units // LEAST_UNITS)))
