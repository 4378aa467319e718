"""Our optimizers against Chainer's."""
import numpy
import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer

from engine.fast import optimizers


@pytest.mark.parametrize('dtype', [numpy.float32, numpy.float64, numpy.float16])
@pytest.mark.parametrize('name, settings', [
    ('Adam', {}), ('Adam', {'alpha': 0.01, 'beta1': 0.8, 'eta': 0.5, 'weight_decay_rate': 0.1}),
    ('Adam', {'amsgrad': True}), ('MomentumSGD', {}), ('MomentumSGD', {'weight_decay': 0.01}),
    ('MomentumSGD', {'lr': 0.3, 'momentum': 0.5})])
@pytest.mark.parametrize('transposed', [False, True])
def test_same_numbers_as_chainer(name, settings, dtype, transposed, monkeypatch, tmp_path):
    monkeypatch.setattr(optimizers, 'BLOCK', 10)
    monkeypatch.setattr(optimizers, 'LEAST', 30)
    monkeypatch.setattr(optimizers, 'usable_cores', lambda: 3)
    if dtype == numpy.float16 and name == 'Adam':
        settings = {**settings, 'eps': 1e-6}
    random = numpy.random.RandomState(0)
    start = random.randn(11, 9).astype(dtype)
    models, both = [], []
    for ours, theirs in ((optimizers, optimizers), (chainer.optimizers, chainer.optimizer_hooks)):
        model = chainer.Link()
        with model.init_scope():
            model.w = chainer.Parameter(start.copy())
            model.none = chainer.Parameter(start[:1].copy())
        models.append(model)
        given = dict(settings)
        if ours is chainer.optimizers:
            given.pop('weight_decay', None)  # it has a hook alone
        both.append(getattr(ours, name)(**given).setup(model))
        if 'weight_decay' not in given:
            both[-1].add_hook(theirs.WeightDecay(0.01))
    for _ in range(4):
        gradient = random.randn(11, 9).astype(dtype)
        for model, optimizer in zip(models, both):
            model.cleargrads()
            model.w.grad = gradient.T.copy().T if transposed else gradient.copy()
            optimizer.update()
        numpy.testing.assert_array_equal(models[0].w.array, models[1].w.array)
        numpy.testing.assert_array_equal(models[0].none.array, models[1].none.array)
    # A state file of either goes on in the other.
    chainer.serializers.save_npz(tmp_path / 'state.npz', both[0])
    chainer.serializers.load_npz(tmp_path / 'state.npz', both[1])
    for model, optimizer in zip(models, both):
        model.w.grad = gradient.copy()
        optimizer.update()
    numpy.testing.assert_array_equal(models[0].w.array, models[1].w.array)
