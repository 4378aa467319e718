"""What both trainings share: rates, the best epoch, stops; and augmentation of frames."""
import json
import math
import shutil

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.links as L
import numpy
import pytest

import helperFunctions as hf
from engine.video.augmentation import Augmentation, brighten, resample
from engine.learning import examples
from engine.learning.batches import NumberedBatches
from engine.errors import UserError
from engine.weights.modelfile import load_weights
from engine.learning.rates import rate_factor
from engine.learning.snapshots import Best, best_line
from engine.learning.trainer import Training, Updater


@pytest.mark.parametrize('schedule,progress,factor', [
    ('constant', 7.5, 1), ('step', 0, 1), ('step', 2.99, 1), ('step', 3, 0.1), ('step', 6, 0.01),
    ('linear', 0, 1), ('linear', 2.5, 0.75), ('linear', 10, 0), ('linear', 11, 0),
    ('cosine', 0, 1), ('cosine', 5, 0.5), ('cosine', 10, 0),
    ('cosine', 10 / 3, 0.75)])
def test_rate_factor(schedule, progress, factor):
    assert rate_factor(schedule, progress, 10, 3) == pytest.approx(factor, abs=1e-12)


def test_best_by_hand(tmp_path):
    link = L.Linear(2, 1)
    chain = chainer.Chain(a=link)
    best = Best(tmp_path / 'best.npz', chain, patience=2)
    stops = []
    for epoch, loss in enumerate([3, 2, 2, 2.5, 1]):
        link.b.array[:] = epoch
        best.add(loss)
        stops.append(best.should_stop())
    # An equal loss is no better one; at epoch 3 none was better for two epochs.
    assert stops == [False, False, False, True, False]
    load_weights(tmp_path / 'best.npz', chain)
    assert link.b.array[0] == 4
    patient = Best(tmp_path / 'other.npz', chain, patience=0)
    patient.add(1)
    for _ in range(99):
        patient.add(2)
    assert not patient.should_stop()


@pytest.mark.parametrize('rule, epoch', [('lowest', 2), ('accuracy', 3), ('window', 4)])
def test_which_epoch_each_rule_keeps_also_after_a_stop(tmp_path, rule, epoch):
    # Means of up to three: 3, 2.5, 2, 1.67, 1.47, 1.5, 1.63; of two equally right the lower loss.
    losses, right = [3, 2, 1, 2, 1.4, 1.1, 2.4], [.1, .2, .3, .9, .5, .4, .9]
    link = L.Linear(2, 1)
    best = Best(tmp_path / 'best.npz', chainer.Chain(a=link), rule=rule)
    for number, figures in enumerate(zip(losses, right)):
        if number == 4:  # stopped here, and gone on with from a snapshot
            saved = chainer.serializers.DictionarySerializer()
            best.serialize(saved)
            best = Best(tmp_path / 'best.npz', best.model, rule=rule)
            best.serialize(chainer.serializers.NpzDeserializer(saved.target))
        link.b.array[:] = number
        best.add(*figures)
    best.load()
    assert link.b.array[0] == epoch
    log = [{'epoch': n, 'validation/main/loss': loss, 'validation/main/accuracy': accuracy}
           for n, (loss, accuracy) in enumerate(zip(losses, right))]
    assert best_line(log, rule)['epoch'] == epoch


class Numbers(NumberedBatches):
    """Batches of one number: 0, 1, 2 ..."""

    def make(self, number):
        return numpy.array([[number]], numpy.float32)


def training(folder, epochs=3, settings=None, rates=None, **options):
    """A training of one weight, whose loss is the weight times the batch's number."""
    link = L.Linear(1, 1, nobias=True, initialW=1)
    optimizer = chainer.optimizers.SGD(0.5)
    optimizer.setup(link)

    class Learning(Updater):
        def learn(self, batch, optimizer):
            if rates is not None:
                rates.append(optimizer.lr)
            loss = chainer.functions.sum(link(batch))
            if self.is_finite(loss):
                link.cleargrads()
                loss.backward()
                optimizer.update()
            chainer.report({'loss': loss, 'accuracy': 0.0}, link)
    updater = Learning(Numbers(4), optimizer, 0, device=chainer.get_device('@numpy'),
                       converter=lambda batch, _: batch,
                       rate=lambda done: rate_factor('linear', done, 3))
    return link, Training(updater, epochs, folder, settings or {'a': 1, 'epochs': epochs},
                          **options)


def test_the_rate_is_that_of_the_iteration_after_resuming_too(tmp_path):
    rates = []
    training(tmp_path, 2, rates=rates)[1].run()
    training(tmp_path, 3, rates=rates)[1].run()
    assert rates == pytest.approx([1 - k / 12 for k in range(12)])


def test_a_line_an_epoch_in_80_columns(tmp_path, capsys):
    run = training(tmp_path, 2, validate=lambda: {'loss': 12345.678, 'accuracy': 0.25})[1]
    run.run()
    titles, *lines = capsys.readouterr().out.splitlines()
    assert titles.split()[0] == 'epoch' and 'held-out accuracy' in titles
    assert [line.split()[0] for line in lines] == ['1', '2']
    for line, logged in zip(lines, run.log()):
        assert f'{logged["main/loss"]:.4f}' in line and '12345.6780' in line and len(line) <= 80
    # none held out, no column of it
    training(tmp_path / 'other', 1)[1].run()
    assert 'held-out' not in capsys.readouterr().out


def test_a_plot_that_fails_ends_no_training(tmp_path, capsys, monkeypatch):
    (tmp_path / 'loss.png').mkdir()  # cannot be written over
    plot = Training._plot
    monkeypatch.setattr(Training, '_plot', lambda self, every=0: plot(self, every=0))
    training(tmp_path, 2)[1].run()
    told = capsys.readouterr().err
    assert f'{tmp_path}/loss.png: ' in told and told.endswith('; the training goes on\n')
    assert told.count('\n') == 1 and (tmp_path / 'accuracy.png').exists()
    assert len(json.loads((tmp_path / 'log').read_text())) == 2


def test_settings_that_differ_are_named(tmp_path):
    training(tmp_path, 1)[1].run()
    with pytest.raises(UserError, match=r'a 1 -> 2, b None -> 3.*--restart'):
        training(tmp_path, 1, {'a': 2, 'b': 3})
    training(tmp_path, 1, {'a': 2}, restart=True)[1].run()
    assert len(json.loads((tmp_path / 'log').read_text())) == 1


def test_a_training_goes_on_with_its_own_clips_alone(tmp_path, capsys):
    clips = [hf.Clip(f'v_{i}', 'A', 0, f'g{i}', tmp_path) for i in range(4)]

    def run(trained, held_out, epochs=1):
        settings = {'a': 1, **examples.which(trained, held_out)}
        training(tmp_path, epochs, settings)[1].run()
    run(clips[:3], clips[3:])
    run(clips[2::-1], clips[3:], 2)  # the order is that of the lists, no other set
    assert 'older' not in capsys.readouterr().out
    renamed = clips[0]._replace(class_name='B', label=1)
    for sides in ((clips[:3], clips[2:]), (clips[1:], clips[:1]), (clips[:2], clips[3:]),
                  ([renamed, *clips[1:3]], clips[3:])):
        with pytest.raises(UserError, match='holds a run with other settings .*_clips .* the clips '
                                            'that it learned from, or those held out, were others '
                                            'than now.*--restart'):
            run(*sides)


def test_a_long_setting_is_told_in_brief(tmp_path):
    training(tmp_path, 1, {'a': {'sha256': 'f' * 600}})[1].run()
    with pytest.raises(UserError, match=r"a \{'sha256': 'f+\.\.\. -> 1\)") as refused:
        training(tmp_path, 1, {'a': 1})[1].run()
    assert len(str(refused.value)) < 400


def test_a_snapshot_that_tells_of_no_clips_goes_on_with_a_word(tmp_path, capsys):
    training(tmp_path, 1)[1].run()
    training(tmp_path, 2, {'a': 1, **examples.which([], [])})[1].run()
    assert 'older one, which does not tell from which clips' in capsys.readouterr().out
    training(tmp_path, 2, {'a': 1, **examples.which([], [])})[1].run()
    assert 'older' not in capsys.readouterr().out


@pytest.mark.parametrize('damage', [lambda data: b'PK nonsense',
                                    lambda data: data[:len(data) // 2],
                                    lambda data: b'PK\x03\x04' + data[4:100]])
def test_a_damaged_snapshot_is_named(tmp_path, damage):
    training(tmp_path, 1)[1].run()
    snapshot = tmp_path / 'snapshot.npz'
    snapshot.write_bytes(damage(snapshot.read_bytes()))
    with pytest.raises(UserError, match='snapshot.npz: cannot be resumed.*--restart'):
        training(tmp_path, 2)[1].run()


def cut(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b'')


def a_folder(path):
    path.unlink()
    path.mkdir()


def flipped(path):
    data = path.read_bytes()
    third = len(data) // 3
    path.write_bytes(data[:third] + bytes(255 - byte for byte in data[third:-third])
                     + data[-third:])


@pytest.mark.parametrize('damage', [cut, empty, flipped, lambda path: path.unlink()])
def test_the_snapshot_before_a_damaged_one_is_taken_with_a_word(tmp_path, damage, capsys):
    for name in ('straight', 'damaged'):
        training(tmp_path / name, 2)[1].run()
    damage(tmp_path / 'damaged' / 'snapshot.npz')
    capsys.readouterr()
    weights = []
    for k, name in enumerate(('straight', 'damaged')):
        link, run = training(tmp_path / name, 3)
        run.run()
        weights.append(float(link.W.array[0, 0]))
        assert [line['epoch'] for line in run.log()] == [1, 2, 3]
        said = capsys.readouterr().out
        assert ('snapshot.npz: ' in said and 'taking' in said) == (name == 'damaged')
        assert f'resumed after epoch {2 - k}' in said
    assert weights[0] == weights[1]
    # and none is whole
    for path in (tmp_path / 'straight').glob('snapshot*'):
        cut(path)
    with pytest.raises(UserError, match='snapshot.npz: .*before.npz: cannot be.*--restart'):
        training(tmp_path / 'straight', 3)[1].run()
    training(tmp_path / 'straight', 1, restart=True)[1].run()


@pytest.mark.parametrize('name', ['settings.json', 'log'])
@pytest.mark.parametrize('text', [None, '', '{"a', '[1]', 'null', '{"a": 2}'])
def test_what_is_only_told_may_be_anything(tmp_path, name, text):
    training(tmp_path, 1)[1].run()
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match='a 1 -> 3'):
        training(tmp_path, 1, {'a': 3})
    training(tmp_path, 2)[1].run()
    assert len(json.loads((tmp_path / 'log').read_text())) == 2
    assert json.loads((tmp_path / 'settings.json').read_text())['a'] == 1


def test_a_snapshot_that_tells_no_settings_wants_settings_json(tmp_path):
    training(tmp_path, 1)[1].run()
    snapshot, settings = tmp_path / 'snapshot.npz', tmp_path / 'settings.json'
    with numpy.load(snapshot) as f:  # as it was written once
        numpy.savez(snapshot, **{name: f[name] for name in f if name != 'settings'})
    with pytest.raises(UserError, match='a 1 -> 3'):
        training(tmp_path, 1, {'a': 3})
    training(tmp_path, 1)
    settings.write_text('[1')
    with pytest.raises(UserError, match='settings.json: not readable .*--restart'):
        training(tmp_path, 1)


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / 'x').write_text('mine')
    with pytest.raises(UserError, match='x: is to be the folder of the training.*move it away'):
        training(tmp_path / 'x', restart=True)
    assert (tmp_path / 'x').read_text() == 'mine'


@pytest.mark.parametrize('damage', [cut, empty, flipped, a_folder, lambda path: path.unlink()])
def test_the_best_weights_are_missed_before_hours_of_training(tmp_path, damage):
    path = tmp_path / 'best.npz'

    def run(epochs, **options):
        link = chainer.Chain(a=L.Linear(100, 100))
        best = Best(path, link)
        training(tmp_path, epochs, best=best, validate=lambda: best.add(1) or {'loss': 1.0},
                 **options)[1].run()
    run(1)
    damage(path)
    with pytest.raises(UserError, match='best.npz: .*(the same command with --restart|'
                                        'move it away)'):
        run(2)
    if path.is_dir():
        path.rmdir()
    run(2, restart=True)


def test_the_best_weights_are_those_that_the_snapshot_tells_of(tmp_path, monkeypatch):
    def run(epochs, folder='a', losses=(3, 2, 1)):
        link = chainer.Chain(a=L.Linear(2, 2))
        best = Best(tmp_path / folder / 'best.npz', link)

        def validate():
            loss = losses[trained.updater.epoch - 1]
            link.a.b.array[:] = loss
            best.add(loss)
            return {'loss': float(loss)}
        trained = training(tmp_path / folder, epochs, best=best, validate=validate)[1]
        trained.run()
        best.load()
        return link.a.b.array[0]

    def killed(_):
        raise KeyboardInterrupt
    assert run(1) == 3
    first = (tmp_path / 'a' / 'best.npz').read_bytes()
    # Killed after a better epoch and before its snapshot: the one before counts again.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, '_snapshot', killed)
        run(2)
    assert (tmp_path / 'a' / 'best.npz').read_bytes() != first
    assert run(1) == 3 and (tmp_path / 'a' / 'best.npz').read_bytes() == first
    # Killed while the better one was written.
    (tmp_path / 'a' / 'best.npz').rename(tmp_path / 'a' / 'best.before.npz')
    assert run(3) == 1
    # One epoch older, or of another run.
    assert run(3, 'b', (5, 4, 3.5)) == 3.5
    for other in ('a/best.before.npz', 'b/best.npz'):
        last = (tmp_path / 'a' / 'best.npz').read_bytes()
        shutil.copy(tmp_path / other, tmp_path / 'a' / 'best.npz')
        with pytest.raises(UserError, match='a/best.npz: not the weights that the snapshot'):
            run(3)
        (tmp_path / 'a' / 'best.npz').write_bytes(last)
        assert run(3) == 1
    # Older snapshots tell of none.
    snapshot = tmp_path / 'a' / 'snapshot.npz'
    with numpy.load(snapshot) as f:
        arrays = {name: f[name] for name in f.files}
    digest, = (name for name in arrays if name.endswith('/digest'))
    del arrays[digest]
    numpy.savez(snapshot, **arrays)
    assert run(3) == 1


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_validation_that_is_no_number_ends_the_training(tmp_path, value):
    with pytest.raises(UserError, match='the loss became .* in the validation after iteration 4'):
        training(tmp_path, validate=lambda: {'loss': value})[1].run()


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_loss_that_is_no_number_changes_no_weight(tmp_path, value, capsys):
    link, run = training(tmp_path)
    link.W.array[:] = value
    with pytest.raises(UserError, match='iteration 1; no epoch was finished; lower --lr'):
        run.run()
    assert not (tmp_path / 'snapshot.npz').exists()
    assert 'Exception' not in capsys.readouterr().err


# ---- frames changed at random -------------------------------------------------------

@pytest.fixture
def frames():
    return numpy.random.RandomState(0).randint(256, size=(3, 32, 32, 3)).astype(numpy.uint8)


def test_the_whole_window_is_the_frame(frames):
    assert numpy.array_equal(resample(frames[0], 1, 0, 0, 0), frames[0])


def test_turns_and_shifts_by_hand(frames):
    frame = frames[0]
    # y runs down: the window's axes turn from right to down, so the picture to the left.
    assert numpy.array_equal(resample(frame, 1, math.pi / 2, 0, 0), numpy.rot90(frame))
    assert numpy.array_equal(resample(frame, 1, math.pi, 0, 0), frame[::-1, ::-1])
    moved = resample(frame, 1, 0, 3 / 32, -2 / 32)
    assert numpy.array_equal(moved[2:, :-3], frame[:-2, 3:])
    assert (moved[:2] == moved[2]).all()  # beyond the edge the edge goes on


def test_half_the_window_doubles_the_size():
    frame = numpy.zeros((32, 32, 3), numpy.uint8)
    frame[12:20, 12:20] = 200
    large = resample(frame, 0.5, 0, 0, 0)
    assert (large[9:23, 9:23] == 200).all() and not large[:7].any()
    assert large.astype(float).sum() == pytest.approx(4 * frame.astype(float).sum(), rel=0.02)


def test_brighten():
    frame = numpy.array([[[0, 10, 200]]], numpy.uint8)
    assert brighten(frame, 1.5).tolist() == [[[0, 15, 255]]]
    assert brighten(frame, 0.5).tolist() == [[[0, 5, 100]]]
    assert numpy.array_equal(brighten(frame, 1), frame)


@pytest.mark.parametrize('how', [dict(flip=True), dict(crop=0.8), dict(rotate=20),
                                 dict(rescale=0.2), dict(brightness=0.3)])
def test_each_change_is_random_and_repeats_itself(frames, how):
    before = frames.copy()
    augment = Augmentation(**how)
    found = [augment(frames, numpy.random.RandomState(seed)) for seed in (1, 1, 2, 3, 4)]
    assert found[0].dtype == numpy.uint8 and found[0].shape == frames.shape
    assert numpy.array_equal(found[0], found[1])
    assert any((found[0] != other).any() for other in found[2:])
    assert numpy.array_equal(frames, before)


def test_nothing_asked_for_changes_nothing(frames):
    assert numpy.array_equal(Augmentation()(frames, numpy.random.RandomState(0)), frames)


def test_a_mirrored_frame_is_the_frame_or_its_mirror(frames):
    mirrored = 0
    for seed in range(40):
        for before, after in zip(frames, Augmentation(flip=True)(
                frames, numpy.random.RandomState(seed))):
            assert (after == before).all() or (after == before[:, ::-1]).all()
            mirrored += bool((after != before).any())
    assert 40 < mirrored < 80


def test_all_that_computed_a_training_is_told(tmp_path, capsys):
    def run(epochs, kernel):
        _, trained = training(tmp_path, epochs, kernel=kernel)
        trained.run()
        return trained.kernel(), capsys.readouterr().out
    assert run(1, 'compiled')[0] == 'compiled'
    kernel, out = run(2, 'compiled')
    assert kernel == 'compiled' and 'computed so far' not in out
    kernel, out = run(3, 'numpy')
    assert kernel == 'compiled; then numpy' and 'computed so far by compiled: the last' in out
    # What computes nothing more is not told of.
    assert run(3, 'another')[0] == 'compiled; then numpy'
