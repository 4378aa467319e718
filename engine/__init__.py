"""Machinery that is not a stage; here, what has to be settled before NumPy is loaded."""
import os
import re
import signal
import sys

# OpenBLAS's threads go on spinning for some 25 ms after a product, on the cores that the threads of
# recurrent.c and winograd.c want next: an LSTM trains at 70 % of its speed then. It reads this, a
# power of two of cycles, when NumPy is loaded, so scripts import from here before NumPy.
os.environ.setdefault('OPENBLAS_THREAD_TIMEOUT', '10')


def _runs_a_script():
    """Whether this program is one of our scripts, not one that uses some of what is here."""
    main = getattr(sys.modules['__main__'], '__file__', None)
    return bool(main) and (os.path.dirname(os.path.abspath(main))
                           == os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# Lists are in UTF-8, and so are names of files; a locale of ASCII or Latin-1 would look for others.
if (_runs_a_script() and sys.getfilesystemencoding() != 'utf-8'
        and not sys.flags.ignore_environment and os.environ.get('PYTHONUTF8') != '1'):
    os.environ['PYTHONUTF8'] = '1'
    if sys.stdout:  # what the terminal reads stays
        os.environ.setdefault('PYTHONIOENCODING', sys.stdout.encoding)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])

# Ctrl-C ends a script that is still importing as it ends other programs, with no traceback of that;
# from stage.run on it does what is said there.
if _runs_a_script() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def usable_cores():
    """How many threads to compute with.

    As many as there are cores that this process may run on: a batch system's cpuset may leave
    fewer than the machine has. OPENBLAS_NUM_THREADS or else OMP_NUM_THREADS ask for fewer.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    for name in ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS'):
        # OpenMP takes a list, a number for each level of nested loops.
        asked = re.match(r'\s*\+?0*([1-9]\d*)\s*(,|$)', os.environ.get(name, ''))
        if asked:
            return min(cores, int(asked[1]))
    return cores
