"""C sources beside this module, compiled on first use by the machine's own compiler.

A library is kept in ``$XDG_CACHE_HOME`` (or ``~/.cache``), one file for each source, compiler
and kind of CPU, so that machines that share a home do not share a library that only some of
them can run. ``CC`` names another compiler than ``cc``. Whoever loads a library must have a
slower way in NumPy, for machines without a compiler.
"""
import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile

from engine.files import put

CACHE = 'ucf101-chainer'
FLAGS = ['-std=gnu11', '-O3', '-ffp-contract=fast', '-fPIC', '-shared']
# Clang on some machines knows only the second; the last always builds, for the plainest CPU.
CPU_FLAGS = [['-march=native'], ['-mcpu=native'], []]


def _cpu():
    """What decides the instructions that ``native`` means: one text for each kind of CPU."""
    about = [platform.system(), platform.machine()]
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return ' '.join(about + [platform.processor(), platform.node()])
    for key in ('model name', 'CPU part', 'flags', 'Features'):
        about += sorted({line for line in lines if line.split(':')[0].strip() == key})
    return ' '.join(about)


def _compiler():
    """-> (command as a list, its version line), or raises OSError."""
    command = shlex.split(os.environ.get('CC', '')) or ['cc']
    if shutil.which(command[0]) is None:
        raise OSError(f'no C compiler ({command[0]})')
    version = subprocess.run(command + ['--version'], capture_output=True, text=True, timeout=60)
    return command, (version.stdout or version.stderr).partition('\n')[0].strip()


def _build(command, source, target):
    """Compiles source to target; whoever reads that name finds a whole file or none."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=target.parent, suffix='.so')
    os.close(handle)
    try:
        for cpu_flags in CPU_FLAGS:
            done = subprocess.run(command + FLAGS + cpu_flags + ['-o', temporary, str(source)],
                                  capture_output=True, text=True, timeout=600)
            if done.returncode == 0:
                put(temporary, target)
                return
        complaint = (done.stderr.strip().splitlines() or ['no message'])[0]
        raise subprocess.SubprocessError(f'{command[0]} failed: {complaint}')
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@functools.lru_cache(maxsize=None)
def load(name):
    """Loads the library made of ``engine/<name>.c``, building it where there is none yet.

    Returns:
        (ctypes.CDLL, the compiler's version line), or (None, why there is no library).
    """
    source = pathlib.Path(__file__).with_name(f'{name}.c')
    try:
        command, version = _compiler()
        key = hashlib.sha256('\0'.join(
            [source.read_text(), version, _cpu(), *command, *FLAGS]).encode()).hexdigest()[:24]
        root = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
        target = pathlib.Path(root, CACHE, f'{name}-{key}.so')
        try:
            if not target.exists():
                _build(command, source, target)
            return ctypes.CDLL(str(target)), version
        except OSError:  # no home to write to: a private folder, for this process only
            with tempfile.TemporaryDirectory() as folder:
                target = pathlib.Path(folder, target.name)
                _build(command, source, target)
                return ctypes.CDLL(str(target)), version
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
