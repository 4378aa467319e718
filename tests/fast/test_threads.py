"""Threads: those that cannot start, errors, Ctrl-C, and BLAS's own."""
import contextlib
import dis
import functools
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy
import pytest
from threadpoolctl import threadpool_info

from convStacks import make_layers
from engine.fast import compiled, conv, threads

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_item_once_in_order():
    for number in (1, 2, 5, 20):
        assert threads.in_threads(lambda item: item * item, range(10), number) == [
            item * item for item in range(10)]
    assert threads.in_threads(str, [], 3) == []


def test_an_error_is_raised_and_stops_the_others():
    done = []

    def function(item):
        if item == 3:
            raise KeyError(item)
        time.sleep(0.001)
        done.append(item)
    with pytest.raises(KeyError):
        threads.in_threads(function, range(10000), 3)
    assert len(done) < 100
    before = len(done)
    time.sleep(0.05)
    assert len(done) == before


def test_threads_that_cannot_start_are_done_without(monkeypatch):
    started = []
    real = threading.Thread.start

    def start(self):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        real(self)
    monkeypatch.setattr(threading.Thread, 'start', start)
    assert threads.in_threads(abs, range(-50, 0), 8) == list(range(50, 0, -1))
    assert len(started) == 1


def blas_threads():
    return {library['num_threads'] for library in threadpool_info()
            if library['user_api'] == 'blas'}


def test_blas_has_its_threads_again_after_calls_that_overlap():
    before = blas_threads()
    first, second = threads.one_blas_thread(), threads.one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert blas_threads() == {1}
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before
    stack = conv.ConvStack(make_layers([8, '8']), compiled=False)
    x = numpy.random.default_rng(0).normal(0, 1, (4, 30, 30, 3)).astype('f')
    expected = stack(x)
    for _ in range(5):
        results = threads.in_threads(lambda _: stack(x), range(6), 6)
        assert all(numpy.array_equal(result, expected) for result in results)
        assert blas_threads() == before


@functools.cache
def operations(code):
    """{offset: (name, whereto an error in it leads)} of the operations of a function."""
    known = dis.Bytecode(code)
    return {op.offset: (op.opname, [entry.target for entry in known.exception_entries
                                    if entry.start <= op.offset < entry.end][-1:])
            for op in known}


@contextlib.contextmanager
def interrupted_at(moment):
    """A Ctrl-C at one of the moments in engine/fast at which Python looks for signals: within a
    call, as a function begins and at the end of a loop's turn. What raises here does so one
    operation later, so those are left out after which an error would lead elsewhere."""
    folder, left, last = os.path.dirname(threads.__file__), itertools.count(moment, -1), {}

    def trace(frame, event, _):
        if not frame.f_code.co_filename.startswith(folder):
            return None
        frame.f_trace_opcodes = True
        if event == 'opcode':
            name, leads = operations(frame.f_code)[frame.f_lasti]
            before, led = last.get(frame, ('', leads))
            last[frame] = name, leads
            if (before.startswith('CALL') or before in ('RESUME', 'JUMP_BACKWARD')) \
                    and led == leads and next(left) == 0:
                raise KeyboardInterrupt
        return trace
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # before 3.12.4 a later wish is not seen
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.skipif(sys.version_info < (3, 11), reason='Python has no exception_entries')
@pytest.mark.parametrize('way', [True, False], ids=['compiled', 'numpy'])
def test_after_a_ctrl_c_at_any_moment_all_is_as_before(way):
    stack = conv.ConvStack(make_layers([8, '8']), threads=2, compiled=way)
    frames = [numpy.random.default_rng(0).normal(0, 1, (n, size, size, 3)).astype('f')
              for n, size in ((2, 12), (3, 8))]
    expected, before = [stack(x) for x in frames], blas_threads()
    for moment in itertools.count():
        stack(frames[0])
        try:
            with interrupted_at(moment):
                stack(frames[1])
            break
        except KeyboardInterrupt:
            assert blas_threads() == before
        for x, y in zip(frames[::-1], expected[::-1]):
            assert numpy.array_equal(stack(x), y), moment
    assert moment > 20


# ---- in C, each time in a process of its own -----------------------------------------------------

SCRIPT = '''
import sys, threading, time
import numpy
import engine.chainer_today
import chainer, chainer.functions as F
from engine.fast import conv, conv_learn, optimizers, recurrent, winograd
from engine.fast.lstm import LSTM
for module in (recurrent, optimizers):
    module.usable_cores = lambda: 6
numpy.random.seed(0)
model, x = LSTM(40, 512), numpy.random.randn(6, 32, 40).astype('f')
w = numpy.random.randn(16, 3, 3, 3).astype('f')
stacks = [conv.ConvStack([(w, None, True)], threads=6, compiled=way) for way in (True, False)]
frames = numpy.random.randn(2, 40, 40, 3).astype('f')
adam = optimizers.Adam().setup(model)
def turn():
    model.reset_state()
    model.cleargrads()
    y = model(x)
    F.sum(y * y).backward()
    adam.update()
    return float(y.array.sum()), *(float(stack(frames).sum()) for stack in stacks)
'''


def run(script, **more):
    return subprocess.run([sys.executable, '-c', SCRIPT + script], cwd=ROOT, text=True,
                          capture_output=True, timeout=120, **more)


needs_library = pytest.mark.skipif(compiled.load('recurrent')[0] is None, reason='not compiled')


@needs_library
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='LD_PRELOAD')
def test_threads_of_c_that_cannot_start_are_done_without(tmp_path):
    """A pthread_create that fails after some stands for a system that has no more to give."""
    source = tmp_path / 'few.c'
    source.write_text('''#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
int left = -1;
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *p)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");
    if (left == 0)
        return EAGAIN;
    left -= left > 0;
    return real(t, a, f, p);
}
''')
    library = tmp_path / 'few.so'
    subprocess.run(['cc', '-shared', '-fPIC', '-o', library, source, '-ldl'], check=True)
    done = run('''
import ctypes
start = [p.array.copy() for p in model.params()]
first, weights = turn(), [p.array.copy() for p in model.params()]
left = ctypes.c_int.in_dll(ctypes.CDLL(sys.argv[1]), 'left')
for number in (0, 1, 3):
    for p, a in zip(model.params(), start):
        p.array[...] = a
    adam = optimizers.Adam().setup(model)
    left.value = number
    assert turn() == first, number
    assert all((p.array == w).all() for p, w in zip(model.params(), weights))
print('same')
'''.replace('sys.argv[1]', repr(str(library))), env={**os.environ, 'LD_PRELOAD': str(library)})
    assert done.stdout == 'same\n', done.stderr


@needs_library
def test_one_ctrl_c_ends_it():
    """At any moment, and nothing goes on computing. What Python itself loses, because it came
    within a finalizer, comes again; a thread that was about to start is none."""
    script = SCRIPT + '''
import signal
signal.signal(signal.SIGALRM, signal.default_int_handler)
sys.unraisablehook = lambda _: signal.setitimer(signal.ITIMER_REAL, 0.01)
for _ in range(8):
    try:
        turn()
        print('ready', flush=True)
        while True:
            turn()
    except KeyboardInterrupt:
        begin = time.process_time()
        time.sleep(0.2)
        print(sum(thread.is_alive() for thread in threading.enumerate()),
              'rests' if time.process_time() - begin < 0.1 else 'spins', flush=True)
'''
    with subprocess.Popen([sys.executable, '-c', script], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE) as process:
        for tries in range(8):
            assert process.stdout.readline() == 'ready\n'
            time.sleep(0.01 + 0.037 * tries)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == '1 rests\n'
