"""Work shared among threads in Python, for what NumPy computes."""
import contextlib
import itertools
import threading

from threadpoolctl import ThreadpoolController  # comes with scikit-learn

_lock = threading.Lock()
_inside, _before = 0, []


def in_threads(function, items, threads):
    """[function(item) for item in items], up to `threads` at once, this one among them.

    A thread that cannot be started is done without. The first error stops the others.
    """
    items, errors, numbers = list(items), [], itertools.count()
    results, stopped = [None] * len(items), threading.Event()

    def work():
        try:
            while not stopped.is_set() and (number := next(numbers)) < len(items):
                results[number] = function(items[number])
        except BaseException as error:
            errors.append(error)
            stopped.set()
    others = [threading.Thread(target=work) for _ in range(min(threads, len(items)) - 1)]
    try:
        with contextlib.suppress(RuntimeError):  # can't start new thread
            for thread in others:
                thread.start()
        work()
    finally:
        stopped.set()
        try:
            _join(others)
        except KeyboardInterrupt:  # while they end; a second one leaves them alone
            _join(others)
            raise
    if errors:
        raise errors[0]
    return results


def _join(threads):
    for thread in threads:
        if thread.ident is not None:  # was started
            thread.join()


def _set(blas, number):
    """Sets the threads of a BLAS, from whichever thread: `_lock` keeps them apart, where
    threadpoolctl 3.8 would do nothing, and say nothing, for all but the first that ever asked."""
    if hasattr(blas, 'clear_controlling_thread'):
        blas.clear_controlling_thread(force=True)
    blas.set_num_threads(number)


@contextlib.contextmanager
def one_blas_thread():
    """Keeps BLAS to one thread, so that its sums never depend on its choice.

    Of calls that overlap, in several threads, the last to leave gives back what was before.
    """
    global _inside, _before
    counted = False
    try:
        with _lock:
            if _inside == 0:
                _before = [(blas, blas.get_num_threads()) for blas
                           in ThreadpoolController().select(user_api='blas').lib_controllers]
            _inside, counted = _inside + 1, True  # with no call between, where a Ctrl-C could come
            for blas, _ in _before:
                _set(blas, 1)
        yield
    finally:
        with _lock:
            _inside -= counted
            if _inside == 0:
                try:
                    _give_back()
                except KeyboardInterrupt:  # in the middle of it
                    _give_back()
                    raise


def _give_back():
    for blas, number in _before:
        _set(blas, number)
