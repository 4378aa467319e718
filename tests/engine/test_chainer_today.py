"""Chainer on today's Python and NumPy: every thing that engine/chainer_today.py mends."""
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L
from chainer import training
from chainer.training import extensions

REPOSITORY = Path(__file__).resolve().parents[2]


def run_python(*arguments, cwd=REPOSITORY):
    """Runs a fresh interpreter that finds this repository's modules."""
    # CuPy, where it is, warns of CUDA libraries that are not.
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), MPLBACKEND='Agg',
                       PYTHONWARNINGS='ignore::UserWarning:cupy._environment')
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment,
                          capture_output=True, text=True, timeout=120)


# ---- the import itself -------------------------------------------------------

def test_import_gives_no_warning_and_leaves_no_stand_in():
    done = run_python('-W', 'error', '-c', '''
import sys
before = set(sys.modules)
import numpy
had_distutils = 'distutils' in numpy.__dict__
import engine.chainer_today
import chainer
assert chainer.__version__ == '7.8.1', chainer.__version__
for name in 'pkg_resources', 'numpy.distutils', 'numpy.distutils.system_info':
    assert name not in sys.modules, name
assert had_distutils or 'distutils' not in numpy.__dict__
assert 'cupy' in sys.modules or not any(name.startswith('scipy') for name in sys.modules)
import chainer.functions as F
a = F.erfinv(numpy.array([0.5], 'f4')).array
b = F.sparse_matmul(chainer.utils.to_coo(numpy.eye(2, dtype='f4')), numpy.ones((2, 1), 'f4')).array
import scipy.sparse, scipy.special
assert type(scipy.special).__name__ == 'module' and abs(a - scipy.special.erfinv(0.5)) < 1e-6
assert (b == 1).all()
''')
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_plain_chainer_still_needs_it():
    # If this ever passes without help, engine/chainer_today.py may be dropped.
    done = run_python('-c', 'import chainer')
    if done.returncode == 0:
        pytest.skip('this Chainer imports by itself; engine/chainer_today.py is not needed')
    assert 'Error' in done.stderr


def test_modules_that_were_there_are_put_back():
    done = run_python('-c', '''
import sys, types
import numpy
real = types.ModuleType('pkg_resources')
sys.modules['pkg_resources'] = real
distutils = types.ModuleType('numpy.distutils')
sys.modules['numpy.distutils'] = numpy.distutils = distutils
import engine.chainer_today
assert sys.modules['pkg_resources'] is real
assert sys.modules['numpy.distutils'] is distutils is numpy.distutils
''')
    assert (done.returncode, done.stderr) == (0, '')


def test_a_second_import_changes_nothing():
    done = run_python('-c', '''
import importlib, sys
import engine.chainer_today, chainer
finders = list(sys.meta_path)
importlib.reload(engine.chainer_today)
assert sys.modules['chainer'] is chainer
assert sys.meta_path == finders
''')
    assert (done.returncode, done.stderr) == (0, '')


def test_a_spawned_process_imports_chainer(tmp_path):
    # Spawn starts a bare interpreter, which imports the main script again.
    script = tmp_path / 'spawn.py'
    script.write_text('''
import multiprocessing
import engine.chainer_today  # before chainer
import chainer
import numpy

def double(x):
    return (chainer.Variable(x) * 2).array

if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        print(pool.map(double, [numpy.float32([1, 2])])[0].tolist())
''')
    done = run_python(str(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, '[2.0, 4.0]\n', '')


def test_no_gpu_package_is_no_error():
    done = run_python('-c', '''
import sys
sys.modules['cupy'] = None  # as on a machine without CuPy
import engine.chainer_today
from chainer.backends import cuda
import numpy
assert not cuda.available
assert cuda.get_array_module(numpy.zeros(1)) is numpy
''')
    assert (done.returncode, done.stderr) == (0, '')


def test_a_gpu_package_finds_what_it_wants_of_scipy(tmp_path):
    (tmp_path / 'cupy.py').write_text('''
import scipy.linalg as linalg
from scipy.special import erf
raise ImportError(f'{linalg.eigh([[2]])[0]} {erf(0)} {linalg.__name__}')
''')
    done = run_python('-c', '''
import engine.chainer_today
from chainer.backends import cuda
print(cuda._resolution_error)
''', cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, '[2.] 0.0 scipy.linalg\n', '')


# ---- names that NumPy dropped ------------------------------------------------

def test_as_strided_matches_numpy_and_its_gradient_is_the_count():
    x = chainer.Variable(np.arange(12, dtype=np.float32).reshape(3, 4))
    # Windows of 2 over each row: steps in elements, not bytes.
    y = F.as_strided(x, (3, 3, 2), (4, 1, 1))
    expected = np.lib.stride_tricks.sliding_window_view(x.array, 2, axis=1)
    np.testing.assert_array_equal(y.array, expected)
    y.grad = np.ones_like(y.array)
    y.backward()
    # An element takes one gradient from each window that holds it.
    np.testing.assert_array_equal(x.grad, [[1, 2, 2, 1]] * 3)


@pytest.mark.parametrize('align_corners, places', [
    (True, [0, 1 / 3, 2 / 3, 1]),  # the corners' centres meet
    (False, [0, 1 / 4, 3 / 4, 1]),  # the corners meet; what lies outside is the edge
])
def test_resize_images_by_hand(align_corners, places):
    x = np.float32([[0, 1], [10, 11]])[None, None]
    y = F.resize_images(x, (4, 4), align_corners=align_corners).array[0, 0]
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, np.add.outer(10 * np.array(places), places), atol=1e-6)


@pytest.mark.filterwarnings('error')
def test_fix_rounds_towards_zero():
    x = np.float32([-1.5, -0.5, 0, 0.5, 1.5])
    np.testing.assert_array_equal(F.fix(x).array, [-1, 0, 0, 0, 1])
    # Its only user in Chainer: the gradient of fmod(x, d) by d is -fix(x / d).
    d = chainer.Variable(np.full(5, 0.4, np.float32))
    y = F.fmod(chainer.Variable(x), d)
    y.grad = np.ones_like(x)
    y.backward()
    np.testing.assert_array_equal(d.grad, [3, 1, 0, -1, -3])


# ---- Caffe models ------------------------------------------------------------

@pytest.mark.parametrize('old_format', [False, True])
def test_a_caffe_model_computes_what_its_blobs_say(tmp_path, old_format):
    from chainer.links.caffe import CaffeFunction
    from chainer.links.caffe.protobuf3 import caffe_pb2
    random = np.random.RandomState(0)
    w = random.randn(3, 2, 3, 3).astype(np.float32)
    b = random.randn(3).astype(np.float32)
    net = caffe_pb2.NetParameter(name='tiny')
    if old_format:  # the published VGG-16 model is of this kind
        layer = net.layers.add(type=caffe_pb2.V1LayerParameter.CONVOLUTION)
    else:
        layer = net.layer.add(type='Convolution')
    layer.name = 'conv1_1'
    layer.bottom.append('data')
    layer.top.append('conv1_1')
    layer.convolution_param.num_output = 3
    if old_format:
        layer.convolution_param.kernel_size.append(3)
        layer.convolution_param.pad.append(1)
    else:
        layer.convolution_param.kernel_h = layer.convolution_param.kernel_w = 3
        layer.convolution_param.pad_h = layer.convolution_param.pad_w = 1
    for array in w, b:
        blob = layer.blobs.add()
        blob.data.extend(array.ravel().tolist())
        blob.num, blob.channels, blob.height, blob.width = (
            array.shape if array.ndim == 4 else (1, 1, 1, array.size))
    path = tmp_path / 'tiny.caffemodel'
    path.write_bytes(net.SerializeToString())

    x = random.randn(2, 2, 6, 5).astype(np.float32)
    function = CaffeFunction(str(path))
    y, = function(inputs={'data': x}, outputs=['conv1_1'])
    np.testing.assert_allclose(
        y.array, F.convolution_2d(x, w, b, pad=1).array, rtol=1e-5, atol=1e-5)


# ---- training ----------------------------------------------------------------

@pytest.mark.filterwarnings('error:::chainer')  # what Chainer itself is warned of
def test_trainer_reports_plots_and_resumes(tmp_path):
    def trainer(epochs):
        x = np.random.RandomState(0).randn(40, 3).astype(np.float32)
        data = chainer.datasets.TupleDataset(x, (x.sum(1) > 0).astype(np.int32))
        model = L.Classifier(L.Linear(3, 2))
        optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
        updater = training.StandardUpdater(
            chainer.iterators.SerialIterator(data, 10), optimizer)
        trainer = training.Trainer(updater, (epochs, 'epoch'), out=str(tmp_path))
        trainer.extend(extensions.Evaluator(
            chainer.iterators.SerialIterator(data, 10, repeat=False, shuffle=False), model))
        trainer.extend(extensions.LogReport())
        trainer.extend(extensions.PrintReport(
            ['epoch', 'main/loss', 'validation/main/accuracy', 'elapsed_time'],
            out=io.StringIO()))
        trainer.extend(extensions.PlotReport(
            ['main/loss', 'validation/main/loss'], 'epoch', filename='loss.png'))
        trainer.extend(extensions.ProgressBar(update_interval=1, out=io.StringIO()))
        trainer.extend(extensions.ExponentialShift('lr', 0.9))
        trainer.extend(extensions.snapshot(n_retains=1, autoload=True))
        return trainer

    trainer(2).run()
    resumed = trainer(3)
    resumed.run()
    assert resumed.updater.iteration == 12
    log = resumed.get_extension('LogReport').log
    assert [entry['epoch'] for entry in log] == [1, 2, 3]
    assert log[-1]['main/loss'] < log[0]['main/loss']
    assert resumed.updater.get_optimizer('main').lr == pytest.approx(0.1 * 0.9 ** 12)
    assert (tmp_path / 'loss.png').read_bytes().startswith(b'\x89PNG')
    assert (tmp_path / 'snapshot_iter_12').is_file()
