"""Work on a GPU that comes again, recorded as a CUDA graph: one call starts all of its kernels.

A graph computes where it was recorded: the arrays that it reads and writes must stay, and hold
what it is to read when it is launched.
"""
import contextlib
import warnings


def recorded(xp, work):
    """work(), which enqueues kernels on the current stream, as a graph; None where that fails.

    Nothing is computed. It must allocate nothing that stays, and must have run before, so that
    all that its kernels need is there. `launch()` of the graph computes on the current stream.
    """
    with xp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        try:
            work()
            return stream.end_capture()
        except Exception as error:
            with contextlib.suppress(Exception):  # it may have ended the recording
                stream.end_capture()
            warnings.warn(f'no CUDA graph, each kernel is started by itself: {error}')
            return None


def can_record(xp):
    return hasattr(xp, 'cuda') and hasattr(xp.cuda, 'Graph')  # else NumPy in CuPy's place
