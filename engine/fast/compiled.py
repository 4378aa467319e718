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

import numpy

from engine.files import put

CACHE = 'ucf101-chainer'
FLAGS = ['-std=gnu11', '-O3', '-ffp-contract=fast', '-fPIC', '-shared', '-pthread']
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


def _opened(target):
    library = ctypes.CDLL(str(target))
    library.kernel.restype = ctypes.c_char_p
    return library, library.kernel().decode()


@functools.lru_cache(maxsize=None)
def load(name):
    """Loads the library made of ``engine/<name>.c``, building it where there is none yet.

    Returns:
        (ctypes.CDLL, for what and by what it was compiled), or (None, why there is no library).
    """
    source = pathlib.Path(__file__).with_name(f'{name}.c')
    try:
        command, version = _compiler()
        key = hashlib.sha256('\0'.join(
            [source.read_text(), source.with_name('kernel.h').read_text(), version, _cpu(),
             *command, *FLAGS]).encode()).hexdigest()[:24]
        root = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
        target = pathlib.Path(root, CACHE, f'{name}-{key}.so')
        try:
            if not target.exists():
                _build(command, source, target)
            return _opened(target)
        except OSError:  # no home to write to: a private folder, for this process only
            with tempfile.TemporaryDirectory() as folder:
                target = pathlib.Path(folder, target.name)
                _build(command, source, target)
                return _opened(target)
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)


def chosen(name, variable, wanted=None):
    """The library of ``engine/fast/<name>.c`` to use, or None for NumPy.

    Args:
        variable: of the environment, that asks for 'compiled' or 'numpy'.
        wanted: True or False ask for one of them whatever the environment says.

    Raises:
        ValueError: the environment asks for something else.
        RuntimeError: the library is asked for, and there is none.
    """
    wish = os.environ.get(variable, '')
    if wish not in ('', 'compiled', 'numpy'):
        raise ValueError(f'{variable} is {wish!r}: give compiled or numpy')
    if wanted is None and wish:
        wanted = wish == 'compiled'
    if wanted is False:
        return None
    library, name_or_reason = load(name)
    if library is None and wanted:
        raise RuntimeError(f'{name}.c is not to be had: {name_or_reason}')
    return library


def kernel_name(name, variable, wanted=None):
    """What `chosen` gives, for logs: 'compiled, AVX-512, gcc 12.2', 'numpy', or
    'numpy (why there is no compiled kernel)'."""
    if chosen(name, variable, wanted) is not None:
        return f'compiled, {load(name)[1]}'
    asked_for = wanted is False or os.environ.get(variable)
    return 'numpy' if asked_for else f'numpy ({load(name)[1]})'


def address(array, dtype=numpy.float32):
    """Where an array's numbers lie, for a C function that takes them one after the other.

    None is null. Raises ValueError for another type, for strides, and for what is not aligned.
    """
    if array is None:
        return None
    if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.aligned:
        raise ValueError(f'C cannot take {array.dtype} with strides {array.strides} of shape '
                         f'{array.shape}: it wants {numpy.dtype(dtype)}, contiguous')
    return array.ctypes.data
