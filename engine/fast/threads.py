"""Work shared among threads in Python, for what NumPy computes."""
import contextlib
import itertools
import threading

from threadpoolctl import threadpool_limits  # comes with scikit-learn

_lock = threading.Lock()
_inside, _limits = 0, None


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


@contextlib.contextmanager
def one_blas_thread():
    """Keeps BLAS to one thread, so that its sums never depend on its choice.

    Of calls that overlap, in several threads, the last to leave gives back what was before.
    """
    global _inside, _limits
    with _lock:
        if _inside == 0:
            _limits = threadpool_limits(1, 'blas')
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limits.restore_original_limits()
