"""engine/locks.py: of two writers one is refused, and what a dead one left stops nobody."""
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine import locks
from engine.errors import UserError
from smallSet import REPOSITORY

HOLDER = '''
import sys, time
from engine import locks, stage
def main():
    locks.BEAT = 0.05
    with locks.only_one(sys.argv[1]):
        print('in', flush=True)
        time.sleep(60)
stage.run(main)
'''


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'RNN.model'


@pytest.fixture
def lock(tmp_path):
    return tmp_path / '.RNN.model.lock'


@pytest.fixture
def holder(path):
    """A process that has the lock of `path`."""
    process = subprocess.Popen([sys.executable, '-c', HOLDER, str(path)], cwd=REPOSITORY, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == 'in\n'
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(locks, 'PAUSE', 0.02)
    monkeypatch.setattr(locks, 'LOOKS', 15)


def can_enter(path):
    with locks.only_one(path):
        return True


def of_another_machine(lock, **fields):
    about = {'boot': 'another', 'numbers': 'pid:[1]', 'host': 'node7', 'pid': 12, 'started': 5,
             'since': '2026-01-02 03:04:05', 'command': 'rnn.py', **fields}
    lock.write_text(json.dumps(about))


def test_the_second_is_told_who_is_first(holder, path, tmp_path):
    for _ in range(2):
        with pytest.raises(UserError) as refused:
            can_enter(path)
        text = str(refused.value)
        assert text.startswith(f'{path}: is being written by process {holder.pid} on '
                               f'{os.uname().nodename} since {time.strftime("%Y-%m-%d ")}')
        assert str(path) in text and 'remove' not in text and '\n' not in text
    assert can_enter(tmp_path / 'other.model')
    holder.terminate()
    assert holder.wait(20) == 143
    assert can_enter(path) and not os.listdir(tmp_path)


def test_a_killed_run_stops_nobody_not_even_before_its_parent_has_seen_it(holder, path, tmp_path):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert can_enter(path) and not os.listdir(tmp_path)


def test_one_that_dies_as_it_removes_a_dead_lock_stops_nobody(holder, path, lock, monkeypatch):
    holder.kill()
    holder.wait()
    real, unlinked = os.unlink, []

    def dying(name):
        unlinked.append(os.fspath(name))
        if os.fspath(lock) in unlinked:  # from then on it removes nothing
            raise KeyboardInterrupt
        real(name)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'unlink', dying)
        can_enter(path)
    assert len(list(path.parent.glob('.*.part'))) == 1
    monkeypatch.setattr(locks, 'CLAIM_LOOKS', 3)
    assert can_enter(path) and not list(path.parent.iterdir())


def test_a_process_number_that_is_used_again_is_another_process(holder, path, lock):
    about = json.loads(lock.read_text())
    holder.kill()
    holder.wait()
    lock.write_text(json.dumps({**about, 'pid': os.getpid()}))
    assert can_enter(path)


def test_one_that_stands_still_is_not_dead(holder, path):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match=f'process {holder.pid}'):
        can_enter(path)


@pytest.mark.parametrize('text', [None, '', '{"boot"', '[]', '{"pid": "x"}', 'é'])
def test_a_lock_of_another_machine_that_nobody_touches_is_taken_over(impatient, path, lock, text,
                                                                     capsys):
    if text is None:
        of_another_machine(lock)
    else:
        lock.write_text(text)
    assert can_enter(path) and not lock.exists()
    said = capsys.readouterr().out
    assert ('process 12 on node7 since 2026-01-02 03:04:05' in said) == (text is None)
    assert 'it is not; going on' in said


def test_a_lock_of_another_machine_that_is_touched_is_respected(impatient, path, lock):
    of_another_machine(lock)
    over = threading.Event()

    def touch():
        while not over.wait(0.05):
            os.utime(lock)
    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(UserError) as refused:
            can_enter(path)
    finally:
        over.set()
        thread.join()
    assert 'process 12 on node7' in str(refused.value) and f'remove {lock}' in str(refused.value)
    assert lock.exists()


def test_a_lock_is_touched_as_long_as_it_is_held(holder, lock):
    before = lock.stat().st_mtime_ns
    deadline = time.monotonic() + 20
    while lock.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_that_was_taken_for_dead_ends_before_it_spoils_anything(holder, lock):
    of_another_machine(lock)
    assert holder.wait(20) == 1
    said = holder.stderr.read()
    assert said.count('\n') == 1 and 'process 12 on node7' in said
    assert json.loads(lock.read_text())['pid'] == 12  # the other one's stays


def test_a_lock_that_someone_deletes_is_made_again(holder, path, lock):
    lock.unlink()
    deadline = time.monotonic() + 20
    while not lock.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(UserError, match=f'process {holder.pid}'):
        can_enter(path)


@pytest.mark.parametrize('dead', [False, True])
@pytest.mark.parametrize('links', [True, False])
def test_of_many_at_once_one_is_in(path, lock, monkeypatch, dead, links):
    """Also where all of them find the lock of a dead run, and on file systems without links."""
    if not links:
        def refuse(*_):
            raise OSError(errno.EPERM, 'Operation not permitted')
        monkeypatch.setattr(os, 'link', refuse)
    if dead:
        with locks.only_one(path):
            text = lock.read_text()
        lock.write_text(json.dumps({**json.loads(text), 'started': 1}))
    inside, most, entered = [], [], []
    start = threading.Barrier(12)

    def enter(number):
        start.wait()
        try:
            with locks.only_one(path):
                inside.append(number)
                entered.append(number)
                most.append(len(inside))
                time.sleep(0.02)
                inside.remove(number)
        except UserError:
            pass
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(enter, range(12)))
    assert entered and max(most) == 1
    assert not list(path.parent.iterdir())


def test_an_answer_of_the_file_server_that_was_lost_is_no_refusal(path, lock, monkeypatch):
    link = os.link

    def asked_twice(source, target):
        link(source, target)
        link(source, target)
    monkeypatch.setattr(os, 'link', asked_twice)
    assert can_enter(path) and not lock.exists()


def test_where_nothing_can_be_written(path, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))
    monkeypatch.setattr('tempfile.mkstemp', refuse)
    error = errno.EROFS
    assert can_enter(path)
    error = errno.ENOSPC
    with pytest.raises(UserError, match='RNN.model: cannot be written: No space left'):
        can_enter(path)


def test_another_user_process_whose_start_is_hidden_is_watched(impatient, path, lock, monkeypatch):
    with locks.only_one(path):
        text = lock.read_text()
    lock.write_text(json.dumps({**json.loads(text), 'pid': 1}))

    def hidden(pid):
        if pid == 1:
            raise PermissionError
        return 5
    monkeypatch.setattr(locks, '_start_of', hidden)
    assert can_enter(path)
