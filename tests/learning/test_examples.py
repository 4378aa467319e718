"""Which training clips are learned from, how often, and what each counts."""
from collections import Counter

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import numpy
import pytest
from sklearn.utils.class_weight import compute_class_weight

import helperFunctions as hf
import rnn
from RNNNet import RNNNet
from PoolingNet import PoolingNet
from engine.learning.batches import NumberedBatches
from engine.learning.examples import BETA, class_weights, draws_of_epoch, share_of_groups
from engine.learning.frames import FrameIterator
from engine.learning.workers import Workers

LABELS = numpy.repeat([0, 1, 3], [60, 12, 3])  # class 2 has no training clip


def clips(*groups):
    """Clips of classes A, B ..., so many groups of two each; the persons of A are in all."""
    return [hf.Clip(f'v_{name}_g{g:02d}_c{c}', name, label, f'g{g:02d}', None)
            for label, (name, n) in enumerate(zip('ABCDE', groups))
            for g in range(n) for c in (1, 2)]


def test_class_weights_are_those_of_the_formulas():
    balanced = class_weights('balanced', LABELS, 5)
    expected = compute_class_weight('balanced', classes=numpy.array([0, 1, 3]), y=LABELS)
    numpy.testing.assert_allclose(balanced[[0, 1, 3]], expected, rtol=1e-6)
    assert balanced[2] == balanced[4] == 0 and balanced.dtype == numpy.float32
    effective = class_weights('effective', LABELS, 5)
    numbers = [sum(BETA ** k for k in range(n)) for n in (60, 12, 3)]  # E_n, by its series
    numpy.testing.assert_allclose(effective[[0, 3]] / effective[1],
                                  [numbers[1] / numbers[0], numbers[1] / numbers[2]], rtol=1e-5)
    assert effective[LABELS].mean() == pytest.approx(1, rel=1e-6)
    assert class_weights('none', LABELS, 5) is None


class Always(NumberedBatches):
    """One batch, for ever."""

    def __init__(self, batch):
        super().__init__(1)
        self.batch = batch

    def make(self, number):
        return self.batch


def weighted_mean(scores, labels, weights):
    """By hand: the mean over the batch of weight x -log softmax."""
    logs = scores - numpy.log(numpy.exp(scores).sum(axis=1, keepdims=True))
    return -(weights[labels] * logs[numpy.arange(len(labels)), labels]).mean()


WEIGHTS = numpy.array([0.5, 1, 4], numpy.float32)


@pytest.mark.parametrize('family', ['rnn', 'pooling'])
def test_the_loss_of_each_network_counts_by_class(family):
    random = numpy.random.RandomState(0)
    xs, labels = random.randn(6, 5, 4).astype('f'), numpy.array([0, 2, 1, 2, 0], 'i')
    lengths = numpy.full(5, 6)
    numpy.random.seed(0)
    if family == 'rnn':
        model = RNNNet(4, 3, 'linear', dropout=(0, 0, 0))
        updater_of = (lambda *args, **kwargs: rnn.WindowUpdater(model, 9, 'last', *args, **kwargs))
    else:
        model = PoolingNet(4, 3, 'conv-pool', (5,), dropout=(0, 0, 0))
        updater_of = (lambda *args, **kwargs: rnn.SequenceUpdater(model, *args, **kwargs))
    model.set_statistics(numpy.zeros(4), numpy.ones(4))
    scores = model(xs)[-1] if family == 'rnn' else model(xs, lengths)
    mean = F.softmax_cross_entropy(scores, labels, class_weight=WEIGHTS)
    assert float(mean.array) == pytest.approx(
        weighted_mean(scores.array.astype(float), labels, WEIGHTS), rel=1e-5)
    model.cleargrads()
    mean.backward()  # Chainer's own class_weight
    wanted = {name: param.grad.copy() for name, param in model.namedparams()}
    old = {name: param.array.copy() for name, param in model.namedparams()}
    optimizer = chainer.optimizers.SGD(1.0)
    optimizer.setup(model)
    updater = updater_of(Always((xs, labels, lengths)), optimizer, seed=0, device='@numpy',
                         converter=lambda batch, _: batch, class_weights=WEIGHTS)
    reporter = chainer.Reporter()
    reporter.add_observer('main', model)
    with reporter.scope(observation := {}):
        updater.update_core()
    assert float(observation['main/loss']) == pytest.approx(float(mean.array), rel=1e-5)
    for name, param in model.namedparams():
        numpy.testing.assert_allclose(old[name] - param.array, wanted[name], atol=1e-6)


def test_weighted_losses_of_several_workers_make_the_whole():
    random = numpy.random.RandomState(1)
    scores, labels = random.randn(7, 3).astype('f'), random.randint(3, size=7)
    whole, parts = weighted_mean(scores, labels, WEIGHTS), []
    for rank in range(2):
        worker = Workers()
        worker.rank, worker.size = rank, 2
        mine, weight = worker.share_of(numpy.arange(7))
        loss = F.softmax_cross_entropy(scores[mine], labels[mine].astype('i'),
                                       class_weight=WEIGHTS)
        parts.append(weight * float(loss.array))
    assert numpy.mean(parts) == pytest.approx(whole, rel=1e-5)


def test_balanced_draws_take_all_classes_alike_and_each_clip_in_turn():
    n = len(LABELS)
    for epoch in range(3):
        draws = draws_of_epoch(LABELS, numpy.random.RandomState(epoch), balanced=True)
        assert len(draws) == n == len(set(draws))
        assert Counter(LABELS[draws % n]) == {0: 25, 1: 25, 3: 25}
        times = Counter((draws % n).tolist())
        assert {times[i] for i in numpy.flatnonzero(LABELS == 3)} <= {8, 9}
        assert {times[i] for i in numpy.flatnonzero(LABELS == 1)} <= {2, 3}
        assert max(times[i] for i in numpy.flatnonzero(LABELS == 0)) == 1
    odd = draws_of_epoch(LABELS[:-1], numpy.random.RandomState(0), balanced=True)
    assert sorted(Counter(LABELS[odd % (n - 1)]).values()) == [24, 25, 25]
    plain = draws_of_epoch(LABELS, numpy.random.RandomState(4))
    assert plain.tolist() == numpy.random.RandomState(4).permutation(n).tolist()


def test_a_clip_that_comes_again_in_an_epoch_shows_another_frame(monkeypatch):
    few = clips(6, 1)
    shown = []

    def read(wanted, size):
        shown.extend(int(middle) for _, (middle,) in wanted)
        return [numpy.zeros((1, size, size, 3), numpy.uint8) for _ in wanted]
    monkeypatch.setattr('engine.learning.frames.read_chosen', read)
    frames = FrameIterator(few, {clip.name: 1000 for clip in few}, 14, 8, 0, balanced=True,
                           workers=1)
    _, labels = frames.next()
    assert Counter(labels.tolist()) == {0: 7, 1: 7}
    assert len(set(shown[:14])) == 14  # 7 of them of two clips


@pytest.mark.parametrize('seed', [0, 1])
def test_smaller_shares_are_part_of_larger_ones_and_whole_groups(seed, capsys):
    every = clips(10, 10, 3, 1)
    before, seen = set(), []
    for share in (0.1, 0.2, 0.5, 0.8, 1.0):
        taken = share_of_groups(every, share, seed)
        groups = {(clip.class_name, clip.group) for clip in taken}
        assert len(taken) == 2 * len(groups)  # both clips of each
        assert before <= groups
        before, seen = groups, [*seen, Counter(name for name, _ in groups)]
        # The same persons in classes of equally many.
        assert {g for name, g in groups if name == 'A'} == {g for n, g in groups if n == 'B'}
    assert seen == [dict(A=1, B=1, C=1, D=1), dict(A=2, B=2, C=1, D=1), dict(A=5, B=5, C=2, D=1),
                    dict(A=8, B=8, C=2, D=1), dict(A=10, B=10, C=3, D=1)]
    assert '2 of 4 classes keep one group, more than that share' in capsys.readouterr().out


def test_other_seeds_take_other_groups():
    every = clips(12)
    assert len({tuple(share_of_groups(every, 0.25, seed)) for seed in range(5)}) > 1
