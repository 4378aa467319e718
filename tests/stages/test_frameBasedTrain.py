"""Stage 1 on 24 tiny clips: what learns, what stays, what is held out, what is resumed."""
import collections
import json
import os
import re
import shutil
import sys
from types import SimpleNamespace

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import numpy
import pytest

import engine.learning.frames
import frameBasedTrain
import helperFunctions as hf
from engine import variants
from VGGNet import VGGNet
from FusionNet import load_frame_network
from VGGNet_1024 import TRAINED
from engine.video.augmentation import Augmentation
from engine.errors import UserError
from engine.files import load_npy
from engine.learning import examples
from engine.learning.frames import FrameIterator
from engine.video.framecounts import frame_counts
from engine.weights.card import read_card
from engine.video.decode import count_frames, read_chosen, read_frames
from engine.video.preprocessing import preprocess
from smallSet import vgg_set

MEAN = (100.0, 110.0, 120.0)


@pytest.fixture
def root(small_set, tmp_path):
    """A root with the clips and a small random VGG.model."""
    return vgg_set(small_set, tmp_path / 'root', mean=MEAN)


@pytest.fixture
def run(monkeypatch):
    def run(root, *flags):
        monkeypatch.setattr(sys, 'argv', ['frameBasedTrain.py', '--root', str(root), '--tiny',
                                          '--features', '16', *map(str, flags)])
        return frameBasedTrain.main()
    return run


def arrays(path):
    with numpy.load(path) as f:
        return {name: f[name] for name in f if name != 'card'}


def log_of(root):
    return json.loads((root / 'frameTraining' / 'log').read_text())


def test_frozen_layers_stay_to_the_byte(root, run):
    run(root, '--weight-decay', 0.1)
    before, after = arrays(root / variants.VGG_MODEL), arrays(root / variants.FRAME_MODEL)
    frozen = [name for name in after if name.split('/')[0] not in TRAINED]
    assert len(frozen) == 2 * 14
    for name in frozen:
        assert after[name].tobytes() == before[name].tobytes(), name
    assert after['fc7/W'].shape == (16, 32)


def test_whole_groups_are_held_out_and_validate(root, run):
    run(root)
    card = read_card(root / variants.FRAME_MODEL)
    lists = hf.read_lists(root)
    held_out = {(clip.class_name, clip.group) for clip in lists.train
                if clip.name in card['held_out']}
    trained = {(clip.class_name, clip.group) for clip in lists.train
               if clip.name not in card['held_out']}
    assert held_out and trained and not held_out & trained
    assert card['preprocessing']['mean'] == list(MEAN)


def test_held_out_figures_are_by_frames(monkeypatch):
    class Batches(list):
        batches_per_epoch = 2
    batches = Batches((None, numpy.array(labels, 'f')) for labels in ([1, 2, 6], [7]))
    monkeypatch.setattr(frameBasedTrain, 'loss_and_accuracy', (
        lambda model, answers, frames, labels: [
            chainer.Variable(numpy.array(labels.mean() / share)) for share in (1, 10)]))
    figures = frameBasedTrain.validate(None, None, batches, 4)
    assert figures == {'loss': pytest.approx(4), 'accuracy': pytest.approx(0.4)}


def test_frames_count_by_class_in_training_alone(root, run, monkeypatch):
    monkeypatch.setattr(examples, 'class_weights', (
        lambda kind, labels, n: numpy.arange(1, n + 1, dtype=numpy.float32)))
    seen, plain = [], frameBasedTrain.loss_and_accuracy

    def watched(*args, **given):
        seen.append((chainer.config.train, given.get('class_weights')))
        return plain(*args, **given)
    monkeypatch.setattr(frameBasedTrain, 'loss_and_accuracy', watched)
    run(root, '--epochs', 1, '--class-weights', 'effective', '--balanced-sampling')
    assert {(train, weights is not None) for train, weights in seen} == {(True, True),
                                                                         (False, False)}
    card = read_card(root / variants.FRAME_MODEL)
    assert list(card['class_weights'].values()) == list(range(1, len(card['classes']) + 1))
    assert card['settings']['balanced_sampling'] and card['training']['train_clips'] > 0


def test_the_loss_of_a_frame_counts_by_its_class():
    scores = numpy.random.RandomState(0).randn(5, 3).astype('f')
    labels = numpy.array([0, 2, 2, 1, 0])
    model = SimpleNamespace(device=chainer.get_device('@numpy'), top=lambda h: scores)
    weights = numpy.array([0.5, 1, 4], 'f')
    loss, accuracy = frameBasedTrain.loss_and_accuracy(
        model, lambda *_: None, None, labels.astype('i'), (), class_weights=weights)
    logs = scores - numpy.log(numpy.exp(scores).sum(axis=1, keepdims=True))
    assert float(loss.array) == pytest.approx(
        -(weights[labels] * logs[range(5), labels]).mean(), rel=1e-5)
    assert float(accuracy.array) == pytest.approx((scores.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize('keep', ['lowest', 'last'])
def test_which_epoch_is_kept(root, run, keep, capsys):
    # A rate at which the loss jumps about: another epoch than the last is the best.
    run(root, '--epochs', 6, '--lr', 0.3, '--keep', keep)
    losses = [line['validation/main/loss'] for line in log_of(root)]
    kept = losses.index(min(losses)) if keep == 'lowest' else 5
    assert losses.index(min(losses)) < 5  # or this test shows nothing
    model, card = load_frame_network(root / variants.FRAME_MODEL)
    line = log_of(root)[kept]
    assert card['validation'] == {'loss': losses[kept],
                                  'accuracy': line['validation/main/accuracy']}
    assert card['training'] == {'train_loss': line['main/loss'], 'epochs': 6, 'epoch': kept + 1,
                                'train_accuracy': line['main/accuracy'],
                                'train_clips': 8, 'train_groups': 8}
    assert (f'kept: epoch {kept + 1} of 6, of the lowest held-out loss' if keep == 'lowest' else
            'kept: epoch 6 of 6, the last\n') in capsys.readouterr().out
    assert held_out_loss(root, model, card) == pytest.approx(losses[kept], rel=1e-4)


def held_out_loss(root, model, card):
    """Mean of -log probability of the middle frames of the clips held out."""
    losses = []
    for clip in hf.read_lists(root).train:
        if clip.name in card['held_out']:
            frame = read_frames(clip.path, [count_frames(clip.path) // 2], 32)
            softmax = model.feature_and_prediction(preprocess(frame, model.mean))[1]
            losses.append(-numpy.log(softmax[0, clip.label]))
    return numpy.mean(losses)


@pytest.fixture
def reads(monkeypatch):
    """Counts how often a FrameIterator has read of each clip."""
    counter = collections.Counter()

    def counted(wanted, size):
        counter.update(path for path, _ in wanted)
        return read_chosen(wanted, size)
    monkeypatch.setattr(engine.learning.frames, 'read_chosen', counted)
    return counter


@pytest.mark.parametrize('layers, flags, times', [
    ('2', (), 1), ('2', ('--memory', 0), 2), ('3', (), 2)])
def test_held_out_frames_are_read_once_where_fc6_stays(layers, flags, times, root, run, reads):
    run(root, '--train-layers', layers, *flags)  # two epochs
    # The figure is that of the model as it was written.
    model, card = load_frame_network(root / variants.FRAME_MODEL)
    held_out = [clip for clip in hf.read_lists(root).train if clip.name in card['held_out']]
    assert [reads[clip.path] for clip in held_out] == [times] * len(held_out)
    assert held_out_loss(root, model, card) == pytest.approx(card['validation']['loss'], rel=1e-4)


def test_a_stopped_run_goes_on_as_if_nothing_had_been(root, tmp_path, run, stopped_after):
    other = tmp_path / 'other'
    other.mkdir()
    for name in (variants.CLIPS, variants.LISTS, variants.VGG_MODEL):
        (other / name).symlink_to(root / name)
    flags = ('--batch', 5, '--frames-per-clip', 2, '--crop', 0.9, '--rotate', 5, '--rescale', 0.1,
             '--brightness', 0.2)
    run(root, *flags)
    stopped_after(3, run, other, *flags)
    run(other, *flags)
    assert (root / variants.FRAME_MODEL).read_bytes() == (other / variants.FRAME_MODEL).read_bytes()
    with pytest.raises(UserError, match='crop 0.9 -> 1.0'):
        run(other, '--batch', 5)


def test_a_loss_that_is_no_number_stops_the_run(root, run):
    with pytest.raises(UserError, match='the loss became .* lower --lr'):
        run(root, '--lr', 1e30)
    assert not (root / variants.FRAME_MODEL).exists()


@pytest.mark.parametrize('flag, value, why', [
    ('--batch', 0, 'at least 1'), ('--crop', 0, 'above 0'), ('--crop', 1.5, 'at most 1'),
    ('--rescale', 1, 'below 1'), ('--brightness', -0.1, 'at least 0'),
    ('--rotate', -1, 'at least 0'),
    ('--memory', -1, 'at least 0'), ('--memory', 'nan', 'not finite'), ('--clip', -5, 'at least 0'),
    ('--momentum', 1, 'below 1'), ('--dropout', 1, 'below 1'), ('--weight-decay', -1, 'at least 0'),
    ('--lr', 0, 'above 0')])
def test_numbers_that_make_no_sense(root, run, capsys, flag, value, why):
    with pytest.raises(SystemExit):
        run(root, flag, value)
    assert f'argument {flag}: ' in (said := capsys.readouterr().err) and why in said


# ---- answers in memory ------------------------------------------------------------

FRAME_BYTES = 4 * 32  # fc6 has 32 units


@pytest.fixture
def moody(monkeypatch):
    """fc6 by a BLAS whose rounding depends on how many rows there are, and on the row."""
    linear = VGGNet.linear

    def rounded(self, name, h):
        error = 1e-7 * numpy.arange(1, len(h) + 1, dtype=numpy.float32) * len(h)
        return linear(self, name, h) * (1 + error[:, None] * (name == 'fc6'))
    monkeypatch.setattr(VGGNet, 'linear', rounded)


def from_memory(capsys):
    """What a run has said: training frames answered from memory, and all."""
    found = re.search(r'(\d+) of (\d+) training frames', capsys.readouterr().out)
    return found and tuple(map(int, found.groups()))


@pytest.mark.parametrize('flags', [(), ('--fusion', 'late', '--train-layers', 2), *(
    pytest.param(flags, marks=pytest.mark.skipif(
        not os.environ.get('LONG'), reason='LONG=1: more ways'))
    for flags in (('--no-fast',), ('--train-layers', 1, '--features', 32)))])
def test_the_bits_depend_neither_on_the_memory_nor_on_a_stop(flags, small_set, tmp_path, run,
                                                             stopped_after, moody, capsys):
    large, small, stopped, off = (vgg_set(small_set, tmp_path / name)
                                  for name in ('large', 'small', 'stopped', 'off'))
    flags = ('--no-flip', '--batch', 5, '--frames-per-clip', 3, '--epochs', 3, *flags)
    little = 30 * FRAME_BYTES / 2 ** 30
    run(large, *flags, '--memory', 1)
    most, every = from_memory(capsys)
    run(small, *flags, '--memory', little)
    some, _ = from_memory(capsys)
    assert 0 < some < most < every
    # Stopped in the second epoch; to go on with another memory is no other setting.
    stopped_after(8, run, stopped, *flags, '--memory', 1)
    run(stopped, *flags, '--memory', little)
    again, rest = from_memory(capsys)
    assert 0 < again < rest < every
    run(off, *flags, '--memory', 0)
    assert from_memory(capsys) is None
    model = variants.Names(fusion='late' if 'late' in flags else 'single').model
    assert (small / model).read_bytes() == (large / model).read_bytes()
    assert (stopped / model).read_bytes() == (large / model).read_bytes()
    computed = arrays(off / model)
    for name, array in arrays(large / model).items():
        assert abs(computed[name] - array).max() <= 1e-4 * abs(array).max(), name


@pytest.mark.parametrize('flags', [
    (), *(('--no-flip', *flags) for flags in (('--crop', 0.9), ('--rotate', 5), ('--rescale', 0.1),
                                              ('--brightness', 0.1), ('--train-layers', 3)))])
def test_training_frames_that_change_are_not_kept(flags, root, run, reads, capsys):
    run(root, *flags)
    assert from_memory(capsys) is None
    held_out = read_card(root / variants.FRAME_MODEL)['held_out']
    drawn = [clip for clip in hf.read_lists(root).train if clip.name not in held_out]
    assert all(reads[clip.path] >= 2 for clip in drawn)  # two epochs


# ---- which frames -----------------------------------------------------------------

@pytest.fixture
def clips(small_set):
    lists = hf.read_lists(small_set)
    return lists.train, frame_counts(small_set, lists.train, 2)[0]


@pytest.mark.parametrize('text', ['3', '[1, 2]', '{"NAME": 3}', '{"NAME": [1, 2]}',
                                  '{"NAME": ["a", "b", "c"]}', '{"NAME": null}', '{"'])
def test_a_table_of_counts_that_is_none_is_made_again(clips, tmp_path, text):
    train, counts = clips
    path = tmp_path / 'frameCounts.json'
    path.write_text(text.replace('NAME', train[0].name))
    found, failures, _ = frame_counts(tmp_path, train[:2], 2)
    assert found == {clip.name: counts[clip.name] for clip in train[:2]} and not failures
    assert set(json.loads(path.read_text())) == set(found)


@pytest.mark.parametrize('per_clip', [1, 3])
def test_an_epoch_holds_every_clip_with_a_smaller_last_batch(clips, per_clip):
    train, counts = clips
    batches = FrameIterator(train, counts, 5, 32, 0, per_clip)
    assert len(train) % 5  # or this test shows nothing
    found = [batches.next() for _ in range(batches.batches_per_epoch)]
    assert batches.is_new_epoch and batches.epoch == 1
    assert sum(len(labels) for _, labels in found) == per_clip * len(train)
    labels = numpy.concatenate([labels for _, labels in found])
    assert sorted(labels) == sorted(per_clip * [clip.label for clip in train])
    for frames, labels in found:
        assert frames.shape == (len(labels), 32, 32, 3) and frames.dtype == numpy.uint8


def test_a_batch_follows_from_its_number_alone(clips):
    def batches():
        return FrameIterator(*clips, 5, 32, 7, 2, Augmentation(True, 0.9, 10, 0.1, 0.2))
    straight = [batch for batch, _ in zip(batches(), range(9))]
    jumped = batches()
    jumped.number = 8  # in the second epoch
    for a, b in zip(straight[8], jumped.next()):
        assert numpy.array_equal(a, b)
    assert not numpy.array_equal(straight[0][0][:4], straight[8][0][:4])


def test_training_and_extraction_give_the_network_the_same_input(undisturbed):
    """A frame as stage 1 validates on gives the feature that stage 2 has saved of it."""
    lists = hf.read_lists(undisturbed)
    model, _ = load_frame_network(undisturbed / variants.FRAME_MODEL)
    counts = frame_counts(undisturbed, lists.train, 2).frames
    frames, _ = FrameIterator(lists.train, counts, len(lists.train),
                              model.shape['input_size'], repeat=False).next()
    features, predictions = model.feature_and_prediction(preprocess(frames, model.mean))
    for clip, feature, prediction in zip(lists.train, features, predictions):
        middle = counts[clip.name] // 2
        saved = load_npy(variants.output_path(undisturbed, variants.FEATURES, clip))[middle]
        assert abs(saved - feature).max() < 1e-4 * abs(saved).max()
        path = variants.output_path(undisturbed, variants.FRAME_PREDICTIONS, clip)
        saved = load_npy(path)[middle]
        assert abs(saved - prediction).max() < 1e-5


def test_a_clip_that_cannot_be_read_is_named_and_left_out(root, small_set, tmp_path, run, capsys):
    bad = hf.read_lists(root).train[0]
    # A folder of its own, so that the shared clips stay as they are.
    (root / variants.CLIPS).unlink()
    for path in (small_set / variants.CLIPS).rglob('*.avi'):
        copy = root / variants.CLIPS / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path)
    bad.path.unlink()
    bad.path.write_bytes(b'not a video')
    assert run(root) == 3
    out = capsys.readouterr().out
    assert bad.name in out and 'left out, and named above: 1 clip\n' in out
    assert bad.name not in read_card(root / variants.FRAME_MODEL)['held_out']


@pytest.mark.parametrize('flags, words', [
    ((), 'more frames of each clip (--frames-per-clip), a smaller --batch and a higher --lr may'),
    (('--frames-per-clip', 16, '--lr', 0.002), 'with few clips a smaller --batch may'),
    (('--small', '--features', 16), 'with few clips a smaller --batch may')])
def test_what_little_there_is_to_learn_from_is_said(flags, words, root, run, capsys):
    run(root, *flags, '--epochs', 1)
    assert words in capsys.readouterr().out


def train_list_of_its_own(root):
    """The training list of a root that shares its lists with others, to be written to."""
    lists = root / variants.LISTS
    real = lists.resolve()
    lists.unlink()
    shutil.copytree(real, lists)
    return lists / 'trainlist01.txt'


def test_a_run_does_not_go_on_with_other_clips(root, run):
    run(root)
    card = read_card(root / variants.FRAME_MODEL)
    path = train_list_of_its_own(root)
    lines = path.read_text().splitlines(keepends=True)
    # Without a group that is held out others are, which it has learned from.
    gone = next(clip for clip in hf.read_lists(root).train if clip.name in card['held_out']).group
    path.write_text(''.join(line for line in lines if f'_{gone}_' not in line))
    with pytest.raises(UserError, match='other settings .*held_out_clips .* were others than now.*'
                                        '--restart'):
        run(root, '--epochs', 3)
    assert len(log_of(root)) == 2
    path.write_text(''.join(reversed(lines)))
    run(root, '--epochs', 3)
    assert read_card(root / variants.FRAME_MODEL)['held_out'] == card['held_out']


def test_nothing_held_out_is_said(root, run, capsys):
    run(root)
    assert 'no clip is held out' not in capsys.readouterr().out
    path = train_list_of_its_own(root)
    first = hf.read_lists(root).train[0].group
    path.write_text(''.join(line for line in path.read_text().splitlines(keepends=True)
                            if f'_{first}_' in line))
    run(root, '--keep', 'lowest', '--restart')
    out = capsys.readouterr().out
    assert 'WARNING: no clip is held out' in out
    assert 'kept: epoch 2 of 2, the last, as no clip is held out\n' in out
    assert read_card(root / variants.FRAME_MODEL)['held_out'] == []
