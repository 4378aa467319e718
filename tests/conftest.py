"""Fixtures that several test files share."""
import os
import signal
import sys
from pathlib import Path

import pytest

import featureSet
import flowSet
import rnn
import smallSet
from engine.errors import UserError
from engine.learning.trainer import Updater


# A shell that starts the tests in the background ignores Ctrl-C for them, and nohup SIGHUP; what is
# ignored stays so in every child, and the tests of these signals would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope='session')
def small_set(tmp_path_factory):
    """A root with 24 clips, lists and a random VGG_1024.model; only to be read."""
    root = tmp_path_factory.mktemp('set')
    smallSet.make_set(root)
    return root


@pytest.fixture(scope='session')
def undisturbed(small_set, tmp_path_factory):
    """A root whose features were saved in one go, and packed and normalised; only to be read."""
    root = smallSet.copy_set(small_set, tmp_path_factory.mktemp('undisturbed') / 'root')
    for script, *flags in (('saveFeatures_1024.py', 1, '--parts', 1), ('save_hdf5.py',),
                           ('normalizeData.py',)):
        done = smallSet.run_stage(script, *flags, '--root', root)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture(scope='session')
def flow_set(small_set, tmp_path_factory):
    """The small set with VGG.model and its flow; only to be read."""
    return flowSet.make_flow_set(small_set, tmp_path_factory.mktemp('flow') / 'root')


@pytest.fixture(scope='session')
def predict_root(undisturbed, tmp_path_factory):
    """A root with both networks of predict.py; only to be read."""
    import predictSet
    return predictSet.make_root(undisturbed, tmp_path_factory.mktemp('predict') / 'root')


@pytest.fixture(scope='session')
def real_data():
    """Folder with UCF-101/, ucfTrainTestlist/ and weights/: real clips, not in the project."""
    folder = Path(os.environ.get('REAL_DATA', Path(__file__).parents[2] / 'shared' / 'data'))
    if not (folder / 'UCF-101').is_dir():
        pytest.skip(f'no real clips in {folder} (REAL_DATA names another folder)')
    return folder


@pytest.fixture
def packed(tmp_path):
    """A root with packed features of made-up clips."""
    featureSet.make_features(tmp_path)
    return tmp_path


@pytest.fixture
def run_rnn(monkeypatch):
    """Runs rnn.py in this process with tiny settings."""
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['rnn.py', '--root', str(root), '--tiny',
                                          *map(str, flags)])
        return rnn.main()
    return run


@pytest.fixture
def stopped_after():
    """Calls a training that gets SIGTERM after its n-th update, and must say that it goes on."""
    core = Updater.update_core

    def stopped(n, train, *args):
        def stopping(self):
            core(self)
            if self.iteration == n:
                os.kill(os.getpid(), signal.SIGTERM)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Updater, 'update_core', stopping)
            with pytest.raises(UserError, match='goes on from there'):
                train(*args)
    return stopped
