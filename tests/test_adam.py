"""Our Adam against Chainer's."""
import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from engine import adam


@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64, numpy.float16])
@pytest.mark.parametrize('settings', [
    {}, {'alpha': 0.01, 'beta1': 0.8, 'eta': 0.5, 'weight_decay_rate': 0.1}, {'amsgrad': True}])
@pytest.mark.parametrize('transposed', [False, True])
def test_same_numbers_as_chainer(settings, dtype, transposed, monkeypatch, tmp_path):
    monkeypatch.setattr(adam, 'BLOCK', 10)
    monkeypatch.setattr(adam, 'LEAST', 30)
    monkeypatch.setenv('OPENBLAS_NUM_THREADS', '3')
    if dtype == numpy.float16:
        settings = {**settings, 'eps': 1e-6}
    random = numpy.random.RandomState(0)
    start = random.randn(11, 9).astype(dtype)
    models, optimizers = [], []
    for kind in (adam.Adam, chainer.optimizers.Adam):
        model = chainer.Link()
        with model.init_scope():
            model.w = chainer.Parameter(start.copy())
            model.none = chainer.Parameter(start[:1].copy())
        models.append(model)
        optimizers.append(kind(**settings).setup(model))
    for _ in range(4):
        gradient = random.randn(11, 9).astype(dtype)
        for model, optimizer in zip(models, optimizers):
            model.w.grad = gradient.T.copy().T if transposed else gradient.copy()
            optimizer.update()
        numpy.testing.assert_array_equal(models[0].w.array, models[1].w.array)
        numpy.testing.assert_array_equal(models[0].none.array, models[1].none.array)
    # A state file of either goes on in the other.
    chainer.serializers.save_npz(tmp_path / 'state.npz', optimizers[0])
    chainer.serializers.load_npz(tmp_path / 'state.npz', optimizers[1])
    for model, optimizer in zip(models, optimizers):
        model.w.grad = gradient
        optimizer.update()
    numpy.testing.assert_array_equal(models[0].w.array, models[1].w.array)
