"""One writer at a time, also where two machines share a file system that has no locks.

    with only_one(root / 'RNN.model'):
        ...  # a second process that comes here with this path is refused

While it works, a writer has a file `.RNN.model.lock` beside what it writes, made by link(2), which
one alone of several can do, on NFS too. It says who made it. On this machine its process is looked
for. On another one nobody can see it, so a writer touches its lock every BEAT seconds, and one
that nobody touches any more is of a run that died. No clock of two machines is compared.
"""
import contextlib
import errno
import hashlib
import json
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
import uuid

from engine.errors import UserError
from engine.files import UMASK, cannot_be_written, json_of, make_folder, remove_leftovers

BEAT = 10.0  # seconds
# As often a lock is looked at, every so many seconds, before it counts as left behind. A file
# server that does not answer for a while holds up both sides.
LOOKS, PAUSE = 30, 2.0
WAIT = 0.05  # seconds between two tries of one that has patience
CLAIM_LOOKS = 50  # every 0.1 s, at what is there for less than that
_held = []


@contextlib.contextmanager
def only_one(path, when=True, patience=0.0):
    """Lets no other process into a block of the same `path` (a file or folder to be written).

    Args:
        path: its folder is made where it is not there.
        when (bool): False for a worker whose first one has the lock.
        patience: seconds to wait for another process to come out of it.

    Raises:
        UserError: naming the process that is in it, its machine and since when.
    """
    if not when:
        yield
        return
    path = os.fspath(path)
    try:
        lock = _take(path, _lock_of(path), time.monotonic() + patience)
    except OSError as error:
        # Who can make no file there will make none, and says so when it has to.
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise cannot_be_written(path, error) from error
        lock = None
    try:
        yield
    finally:
        if lock:
            lock.release()


def release_all():
    """Gives back all locks of this process; for those that leave by os._exit."""
    for lock in list(_held):
        lock.release()


class _Lock:
    """A lock that this process has."""

    def __init__(self, path, lock_path, text):
        self.path, self.lock_path, self.text = path, lock_path, text
        self.over, self.one_at_a_time = threading.Event(), threading.Lock()
        threading.Thread(target=self._beat, daemon=True).start()
        _held.append(self)

    def _beat(self):
        while not self.over.wait(BEAT):
            with self.one_at_a_time, contextlib.suppress(OSError):
                if not self.over.is_set():
                    # where someone has deleted it, it is made again
                    if not (_read(self.lock_path) == self.text
                            or _create(self.lock_path, self.text)):
                        self._lost()
                    os.utime(self.lock_path)

    def _lost(self):
        """Ends this process: it or its machine stood still, and the others believed it dead."""
        with contextlib.suppress(OSError):
            print(f'error: {self.path}: this process gave no sign of life for a while, so another '
                  f'one has gone on: {_in_words(_read(self.lock_path))}', file=sys.stderr,
                  flush=True)
        os._exit(1)

    def release(self):
        self.over.set()
        with self.one_at_a_time, contextlib.suppress(OSError, ValueError):
            _held.remove(self)
            if _read(self.lock_path) == self.text:
                os.unlink(self.lock_path)


def _lock_of(path):
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(folder, f'.{name}.lock')


def _take(path, lock_path, end):
    make_folder(os.path.dirname(lock_path))
    _remove_leftovers(lock_path)
    here = _machine()
    text = json.dumps({**here, 'host': platform.node(), 'pid': os.getpid(),
                       'started': _start_of(os.getpid()) if here else None,
                       'since': time.strftime('%Y-%m-%d %H:%M:%S'),
                       'command': shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
                       'id': uuid.uuid4().hex})
    while not _create(lock_path, text):
        theirs = _read(lock_path)
        if theirs is None:
            continue  # gone in this moment
        if _is_alive(path, lock_path, theirs):
            if time.monotonic() < end:
                time.sleep(WAIT)
                continue
            raise UserError(f'{path}: is being written by {_in_words(theirs)}; let it end, or end '
                            'it first' + ('' if _is_of(here, theirs) else
                                          f' (if it is no more, remove {lock_path})'))
        _remove(lock_path, theirs)
    return _Lock(path, lock_path, text)


def _remove(lock_path, text):
    """Removes the lock of a dead run: one alone of several that see it, and no other's."""
    claim = f'{lock_path}.{hashlib.sha256(text.encode()).hexdigest()[:16]}.part'
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
    except FileExistsError:  # for a moment, unless who made it died, too
        for _ in range(CLAIM_LOOKS):
            time.sleep(0.1)
            if not os.path.exists(claim) or _read(lock_path) != text:
                return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(claim)
        return
    try:
        if _read(lock_path) == text:
            os.unlink(lock_path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # another believed us dead
            os.unlink(claim)


def _remove_leftovers(lock_path):
    folder, name = os.path.split(lock_path)
    remove_leftovers([os.path.join(folder, name.removeprefix('.'))])


def _create(lock_path, text):
    """Makes the lock file, whole from the first moment; returns whether there was none."""
    folder, name = os.path.split(lock_path)
    handle, temporary = tempfile.mkstemp(prefix=f'{name}.', suffix='.part', dir=folder)
    try:
        with open(handle, 'w', encoding='utf-8') as f:
            f.write(text)
        os.chmod(temporary, 0o666 & ~UMASK)
        try:
            os.link(temporary, lock_path)
        except OSError as error:
            if error.errno == errno.EEXIST:
                # Over NFS the answer may get lost, and the question be asked twice.
                return os.stat(temporary).st_nlink == 2
            return _create_without_links(lock_path, text, error)
        return True
    finally:
        os.unlink(temporary)


def _create_without_links(lock_path, text, error):
    if error.errno not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK):
        raise error
    try:
        with open(lock_path, 'x', encoding='utf-8') as f:
            f.write(text)
    except FileExistsError:
        return False
    return True


def _read(lock_path):
    """The text of a lock; None where there is none."""
    try:
        with open(lock_path, encoding='utf-8', errors='replace') as f:
            return f.read()
    except FileNotFoundError:
        return None


def _about(text):
    """What a lock says of its maker; {} if it is not whole."""
    try:
        about = json_of(text)
        return about if isinstance(about, dict) else {}
    except (TypeError, ValueError):
        return {}


def _in_words(text):
    about = _about(text)
    if not about:
        return 'another process'
    return (f'process {about.get("pid")} on {about.get("host")} since {about.get("since")} '
            f'({about.get("command")})')


def _machine():
    """What tells whether a process number of a lock means anything here; {} if nothing does."""
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as f:
            # containers of one machine have numbers of their own
            return {'boot': f.read().strip(), 'numbers': os.readlink('/proc/self/ns/pid')}
    except OSError:
        return {}


def _is_of(machine, text):
    """Whether a lock was made on a machine."""
    return bool(machine) and machine.items() <= _about(text).items()


def _start_of(pid):
    """When a process was started (an own number of the kernel); None: it is not there or dead.

    Raises:
        PermissionError: it is there, but hidden from other users.
    """
    try:
        with open(f'/proc/{pid}/stat', 'rb') as f:
            # the name in brackets may hold anything
            state, *rest = f.read().rpartition(b')')[2].split()
        return None if state in b'ZX' else int(rest[18])
    except (FileNotFoundError, ProcessLookupError):
        os.kill(pid, 0)
        raise PermissionError from None


def _is_alive(path, lock_path, text):
    about = _about(text)
    if _is_of(_machine(), text):
        with contextlib.suppress(PermissionError, TypeError):
            try:
                return _start_of(about.get('pid')) == about.get('started')
            except ProcessLookupError:
                return False
    return _is_touched(path, lock_path, text)


def _is_touched(path, lock_path, text):
    """Whether someone touches a lock while we look at it, opened anew as NFS wants it."""
    print(f'{path}: has a lock by {_in_words(text)}; seeing for {LOOKS * PAUSE:.0f} s whether it '
          'is alive', flush=True)
    touched = None
    for _ in range(LOOKS + 1):
        try:
            with open(lock_path, encoding='utf-8', errors='replace') as f:
                now = os.fstat(f.fileno()).st_mtime_ns
                if f.read() != text:
                    return False  # nor its own any more
        except FileNotFoundError:
            return False
        if touched not in (None, now):
            return True
        touched = now
        time.sleep(PAUSE)
    print(f'{path}: it is not; going on', flush=True)
    return False
