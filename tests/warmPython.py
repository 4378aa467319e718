"""Runs scripts in children of a Python that has the libraries loaded: nearly a second less each.

The child is a fork, made before anything was computed, so a script finds what it finds in a fresh
Python but for the time that importing Chainer, SciPy and the like takes.
"""
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARIES = ('engine.chainer_today', 'chainer', 'chainer.training.extensions', 'h5py', 'scipy.stats',
             'sklearn.metrics', 'tqdm', 'cv2', 'PIL.Image', 'matplotlib.figure', 'imageio_ffmpeg')
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(list(LIBRARIES))
REPOSITORY = Path(__file__).resolve().parent.parent


def _environment():
    return {name: value for name, value in os.environ.items() if name != 'PYTEST_CURRENT_TEST'}


ENVIRONMENT = _environment()


def same_environment():
    """Whether no test has changed what only a fresh Python would read."""
    return _environment() == ENVIRONMENT


def run_script(*words):
    """As smallSet.run(sys.executable, *words) gives it, in the same environment."""
    words = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ('out', 'errors')]
        child = FORKS.Process(target=_become, args=(words, said))
        child.start()
        child.join()
        texts = [path.read_text(errors='surrogateescape') for path in said]
    return subprocess.CompletedProcess(words, child.exitcode, *texts)


def _become(words, said):
    for number, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(REPOSITORY)
    os.environ['PYTHON'] = sys.executable
    sys.argv, sys.path[:0] = words, [os.path.dirname(words[0])]
    runpy.run_path(words[0], run_name='__main__')
