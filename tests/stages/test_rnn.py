"""Stage 6: what it writes, keeps and resumes, testing in other ways, bad input."""
import functools
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy
import pytest

import featureSet
import smallSet
import helperFunctions as hf
from engine import hdf5, progress, variants
import rnn
from RNNNet import load_rnn
from VGGNet_1024 import VGGNet_1024
from engine.errors import UserError
from engine.weights.card import keep_in_card, read_card, weights_digest
from engine.weights.modelfile import save_model
from engine.learning.steploss import sequence_loss
from featureSet import lines_of
from smallSet import REPOSITORY


def log_of(root, name='RNN'):
    return json.loads((root / f'{name}.training' / 'log').read_text())


def test_writes_what_it_says(packed, run_rnn, capsys, monkeypatch):
    monkeypatch.setattr(progress, 'Progress', functools.partial(progress.Progress, every=0.0))
    run_rnn(packed, '--cells', 12, 8, '--dropout', 0.1, 0.2, 0.3, '--variable-length')
    line, = lines_of(packed)
    assert (line['method'], line['unit'], line['n']) == ('LSTM 12-8', 'video', 12)
    assert line['predictions'] == 'RNN_testPredictions.hdf5'
    model, card = load_rnn(packed / 'RNN.model')
    assert card['classes'] == featureSet.CLASSES and model.shape['cells'] == [12, 8]
    lists = hf.read_lists(packed)
    training, held_out = hf.hold_out_groups(lists.train)
    told = capsys.readouterr().out
    assert f'{len(training)} clips to train, {len(held_out)} to validate' in told
    # How far it is, after each clip: two epochs' validation, and that at the end.
    for kind, clips, times in (('validation', held_out, 3), ('test', lists.test, 1)):
        for n in range(1, len(clips) + 1):
            assert told.count(f'\n{kind}: {n}/{len(clips)} clips, ') == times
    for kind, clips in (('test', lists.test), ('validation', held_out)):
        with h5py.File(packed / f'RNN_{kind}Predictions.hdf5') as f:
            assert sorted(f) == sorted(clip.name for clip in clips)
            assert all(data.shape == (16, 3) or len(data) > 16 for data in f.values())
    kept = min(log_of(packed), key=lambda epoch: epoch['validation/main/loss'])
    # The validation in training looks at the clips as the test does.
    assert line['validation_loss'] == pytest.approx(kept['validation/main/loss'], rel=1e-5)
    assert line['validation_accuracy'] == kept['validation/main/accuracy']
    assert (line['train_loss'], line['epoch']) == (kept['main/loss'], kept['epoch'])
    assert card['temperature'] == line['temperature'] and 0 <= line['ece_calibrated'] <= 1


@pytest.mark.parametrize('name', [
    'x.model', 'x_testPredictions.hdf5', 'x_validationPredictions.hdf5', 'results.jsonl',
    'x.training/best.npz', 'x.training/log', 'x.training/snapshot.before.npz'])
def test_outputs_that_cannot_be_written_are_refused_before_the_training(name, packed, run_rnn,
                                                                        monkeypatch):
    (packed / name).mkdir(parents=True)
    monkeypatch.setattr(rnn.WindowUpdater, 'learn', None)
    with pytest.raises(UserError, match=f'{name}: is a folder, where a file is to be written'):
        run_rnn(packed, '--name', 'x')


def test_learns_what_there_is_to_learn(packed, run_rnn):
    run_rnn(packed, '--epochs', 15, '--optimizer', 'adam', '--lr', 0.02, '--no-batch-norm',
            '--hidden', 0, '--dropout', 0)
    assert lines_of(packed)[0]['top1'] > 0.8


@pytest.mark.parametrize('flags', [
    ('--optimizer', 'adam', '--schedule', 'cosine', '--recurrent-dropout', '0.2', '--patience',
     '9'),
    ('--cell', 'gru', '--schedule', 'step', '--lr-drop', '2', '--weight-decay', '0.01', '--noise',
     '0.1', '--variable-length')])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(packed, tmp_path, run_rnn, stopped_after,
                                                      flags):
    other = tmp_path / 'other'
    featureSet.make_features(other)
    run_rnn(packed, '--epochs', 4, *flags)
    for stop in (2, 7):  # in the middle of an epoch of 3 batches, and at the start of one
        stopped_after(stop, run_rnn, other, '--epochs', 4, *flags)
    run_rnn(other, '--epochs', 4, *flags)
    assert (packed / 'RNN.model').read_bytes() == (other / 'RNN.model').read_bytes()
    logs = [[{key: value for key, value in epoch.items() if key != 'elapsed_time'}
             for epoch in log_of(folder)] for folder in (packed, other)]
    assert logs[0] == logs[1] and len(logs[0]) == 4


def test_more_epochs_go_on_but_other_settings_are_refused(packed, run_rnn):
    run_rnn(packed, '--epochs', 1)
    run_rnn(packed, '--epochs', 3)
    assert [epoch['epoch'] for epoch in log_of(packed)] == [1, 2, 3]
    with pytest.raises(UserError, match='other settings .*lr 0.0005 -> 0.1.*--restart'):
        run_rnn(packed, '--epochs', 3, '--lr', 0.1)
    run_rnn(packed, '--epochs', 1, '--lr', 0.1, '--restart')
    assert len(log_of(packed)) == 1


def test_a_run_does_not_go_on_with_other_clips(packed, run_rnn):
    run_rnn(packed, '--epochs', 1)
    path = packed / variants.LISTS / 'trainlist01.txt'
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(''.join(reversed(lines)))
    run_rnn(packed, '--epochs', 2)
    path.write_text(''.join(lines[1:]))
    with pytest.raises(UserError, match='trained_clips .* were others than now.*--restart'):
        run_rnn(packed, '--epochs', 3)
    assert len(log_of(packed)) == 2


def test_clips_that_were_learned_from_test_no_network(packed, run_rnn):
    run_rnn(packed, '--epochs', 1)
    card = read_card(packed / 'RNN.model')
    with h5py.File(packed / variants.TRAIN_HDF5, 'r+') as f:
        held_out = hdf5.read_names(f, 'held_out')
        assert not {*held_out, 'x'} & {*card['trained_clips']} and len(card['trained_clips']) == 24
        del f['.about/held_out']
        f['.about/held_out'] = numpy.array(card['trained_clips'][:2], 'S')
    with pytest.raises(UserError, match='has learned from 2 of the 2 validation clips of now'):
        run_rnn(packed, '--test-only')
    keep_in_card(packed / 'RNN.model', trained_clips=[])  # as older cards
    run_rnn(packed, '--test-only')


def test_rare_classes_weights_are_in_card_and_settings(packed, run_rnn):
    run_rnn(packed, '--epochs', 1, '--class-weights', 'balanced', '--train-share', 0.5)
    line, (_, card) = lines_of(packed)[0], load_rnn(packed / 'RNN.model')
    # of 4 training groups of each class 2 are taken, of 2 clips each
    assert (line['train_clips'], line['train_groups']) == (12, 6)
    assert card['class_weights'] == dict.fromkeys(featureSet.CLASSES, 1.0)
    assert line['settings']['class_weights'] == 'balanced' and 'class_weights' not in line
    assert line['settings']['train_share'] == 0.5
    with pytest.raises(UserError, match='balanced_sampling None -> True, class_weights balanced '
                                        '-> None, train_share 0.5 -> None'):
        run_rnn(packed, '--epochs', 1, '--balanced-sampling')
    # What asks for nothing is told of in no settings, as before there was a choice.
    run_rnn(packed, '--epochs', 1, '--restart', '--class-weights', 'none', '--train-share', 1)
    assert not {'class_weights', 'balanced_sampling', 'train_share'} & set(
        lines_of(packed)[1]['settings'])


def test_fewer_epochs_than_were_trained_are_refused(packed, run_rnn):
    run_rnn(packed, '--epochs', 2)
    with pytest.raises(UserError, match='has 2 epochs, but --epochs is 1; .*--restart'):
        run_rnn(packed, '--epochs', 1)
    assert len(lines_of(packed)) == 1


def test_stops_when_the_validation_loss_no_longer_falls(packed, run_rnn, capsys):
    # A rate too small to change any weight: the first epoch stays the best.
    run_rnn(packed, '--epochs', 9, '--patience', 2, '--lr', 1e-30, '--no-batch-norm')
    assert len(log_of(packed)) == 3
    assert lines_of(packed)[0]['epoch'] == 1
    out = capsys.readouterr().out
    assert ('kept: epoch 1 of 3, of the lowest held-out loss\nended before --epochs 9: 2 epochs '
            'without a better one (--patience 2)\n') in out
    # Advised is only what is not so yet.
    assert '--optimizer adam and more --epochs may help' in out
    run_rnn(packed, '--restart', '--epochs', 1, '--optimizer', 'adam', '--batch', 1, '--steps', 1)
    out = capsys.readouterr().out
    assert 'kept: epoch 1 of 1' in out and 'ended before' not in out
    assert 'with few clips more --epochs may help' in out


def test_the_best_epoch_is_kept_not_the_last(packed, run_rnn):
    # A rate at which the loss jumps about; another epoch where the last is the best so far.
    for epochs in range(5, 12):
        run_rnn(packed, '--epochs', epochs, '--lr', 0.5, '--optimizer', 'adam')
        losses = [epoch['validation/main/loss'] for epoch in log_of(packed)]
        if losses.index(min(losses)) < epochs - 1:
            break
    assert losses.index(min(losses)) < epochs - 1  # or this test shows nothing
    assert lines_of(packed)[-1]['validation_loss'] == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize('poison', ['loss', 'weights'])
def test_a_loss_that_is_no_number_keeps_the_last_good_snapshot(packed, run_rnn, monkeypatch,
                                                               poison):
    run_rnn(packed, '--epochs', 1)
    snapshot = packed / 'RNN.training' / 'snapshot.npz'
    before, model = snapshot.read_bytes(), (packed / 'RNN.model').read_bytes()
    if poison == 'loss':
        monkeypatch.setattr('rnn.sequence_loss', lambda *args: (
            sequence_loss(*args)[0] * float('nan'), 0))
    else:
        core = rnn.WindowUpdater.update_core

        def poisoned(self):
            core(self)
            if self.iteration == 5:  # the last of the second epoch
                self.model.out.b.array[0] = numpy.nan
        monkeypatch.setattr(rnn.WindowUpdater, 'update_core', poisoned)
    with pytest.raises(UserError, match='last good snapshot is kept.*lower --lr'):
        run_rnn(packed, '--epochs', 3)
    assert snapshot.read_bytes() == before
    assert (packed / 'RNN.model').read_bytes() == model
    monkeypatch.undo()
    with numpy.load(snapshot) as f:
        assert all(numpy.isfinite(f[name]).all() for name in f if 'out/' in name)


def test_features_of_an_earlier_model_are_told_of(packed, run_rnn, capsys):
    model = VGGNet_1024((4, 4, 4, 4, 4), 4, 2, 32, 4)
    save_model(packed / variants.FRAME_MODEL, model, {'shape': model.shape})
    for same in (True, False):
        for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
            with h5py.File(packed / name, 'a') as f:
                smallSet.say(f, model_sha256=weights_digest(packed / variants.FRAME_MODEL)
                             if same else 'another')
        run_rnn(packed, '--restart')
        assert ('features of an earlier VGG_1024.model' in capsys.readouterr().out) != same


def test_other_inference_without_training_again(packed, run_rnn):
    run_rnn(packed, '--test-steps', 12)
    model = (packed / 'RNN.model').read_bytes()
    run_rnn(packed, '--test-only')  # as it was tested in training
    run_rnn(packed, '--test-only', '--inference', 'segments:3', '--test-steps', 4, '--reverse-too',
            '--readout', 'max', '--lr', 99)
    first, again, other = lines_of(packed)
    assert (packed / 'RNN.model').read_bytes() == model
    assert again['predictions'] == 'RNN-first12-linear_testPredictions.hdf5'
    assert other['predictions'] == 'RNN-segments3x4-reversed-max_testPredictions.hdf5'
    same = ('top1', 'loss', 'validation_loss', 'settings', 'train_loss', 'seed', 'method')
    assert [first[key] for key in same] == [again[key] for key in same]
    assert [line.get('test_only') for line in (first, again, other)] == [None, True, True]
    assert other['settings'] == {**first['settings'], 'inference': 'segments:3', 'test_steps': 4,
                                 'reverse_too': True, 'readout': 'max'}
    with h5py.File(packed / other['predictions']) as f:
        assert hdf5.attribute(f, 'readout') == 'max' and {len(data) for data in f.values()} == {4}
    assert (packed / 'RNN-segments3x4-reversed-max_validationPredictions.hdf5').exists()


def test_a_model_of_another_variant_names_the_flags_to_add(packed, run_rnn):
    names = variants.Names('flow', layer='pool5')
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
        shutil.copy(packed / name, packed / names.of(name))
        with h5py.File(packed / names.of(name), 'r+') as f:
            f.attrs.update(names.said())
    flags = ('--stream', 'flow', '--layer', 'pool5')
    run_rnn(packed, *flags)
    before = (packed / 'RNN_flow_pool5.model').read_bytes()
    for wrong in (('--name', 'RNN_flow_pool5', '--test-only'), ('--start-from', 'RNN_flow_pool5')):
        with pytest.raises(UserError, match='RNN_flow_pool5.model: was trained with --stream flow '
                                            '--layer pool5, not --stream rgb --layer fc7$'):
            run_rnn(packed, *wrong)
    assert not (packed / 'RNN.training').exists()
    # what it says is right, also where one of two is there, and where the others' data are gone
    for name in (variants.TRAIN_HDF5, variants.TEST_HDF5):
        (packed / name).unlink()
    with pytest.raises(UserError, match='with --layer pool5, not --layer fc7$'):
        run_rnn(packed, '--name', 'RNN_flow_pool5', '--test-only', '--stream', 'flow')
    run_rnn(packed, '--name', 'RNN_flow_pool5', '--test-only', *flags)
    run_rnn(packed, '--name', 'longer', '--start-from', 'RNN_flow_pool5', *flags)
    assert (packed / 'RNN_flow_pool5.model').read_bytes() == before
    # the other way round
    card = read_card(packed / 'longer.model')
    save_model(packed / 'RNN.model', load_rnn(packed / 'longer.model')[0], {
        key: value for key, value in card.items() if key not in ('stream', 'fusion', 'layer')})
    with pytest.raises(UserError, match='with --stream rgb --layer fc7, not '
                                        '--stream flow --layer pool5$'):
        run_rnn(packed, '--name', 'RNN', '--test-only', *flags)


@pytest.mark.parametrize('flags,why', [
    (['--layers', '3', '--cells', '8', '4'], 'one for each of the layers'),
    (['--dropout', '0.1', '0.2'], 'one ratio or three'),
    (['--name', 'a b'], 'letters'), (['--schedule', 'step'], '--lr-drop'),
    (['--lr-drop', '3'], '--schedule step'), (['--name', 'a/b'], 'not a path'),
    (['--inference', 'segments:2', '--test-steps', '0'], '--test-steps'),
    (['--stream', 'flow', '--reverse-too'], 'not of --stream flow')])
def test_flags_that_make_no_sense_together(flags, why):
    with pytest.raises(UserError, match=why):
        rnn.parse(rnn.get_parser(), flags)


@pytest.mark.parametrize('flag, value, why', [
    ('--dropout', '1', 'below 1'), ('--recurrent-dropout', '-0.1', 'at least 0'),
    ('--drop-frames', 'nan', 'not finite'), ('--noise', '-1', 'at least 0'),
    ('--lr', '0', 'above 0'), ('--lr', 'inf', 'not finite'), ('--clip', '-5', 'at least 0'),
    ('--clip-value', '-1', 'at least 0'), ('--weight-decay', '-0.1', 'at least 0'),
    ('--lr-drop', '-1', 'at least 0'), ('--memory', '-1', 'at least 0'),
    ('--memory', 'much', 'not a number')])
def test_numbers_that_make_no_sense(flag, value, why, capsys):
    with pytest.raises(SystemExit):
        rnn.parse(rnn.get_parser(), [flag, value])
    assert f'argument {flag}: ' in (said := capsys.readouterr().err) and why in said


@pytest.mark.parametrize('stream, reverse', [('rgb', True), ('flow', False)])
def test_sequences_of_flow_never_run_backward(stream, reverse):
    assert rnn.parse(rnn.get_parser(), ['--stream', stream]).reverse is reverse


def test_cells_a_layer():
    def cells(*flags):
        args = rnn.parse(rnn.get_parser(), flags)
        return args.layers, args.cells, rnn.method_of(args)
    assert cells() == (1, [1024], 'LSTM 1x1024')
    assert cells('--layers', '3', '--cells', '8') == (3, [8, 8, 8], 'LSTM 3x8')
    assert cells('--cells', '8', '4', '--cell', 'gru') == (2, [8, 4], 'GRU 8-4')


# ---- bad input, as a person meets it ---------------------------------------------

def change(path, action):
    with h5py.File(path, 'r+') as f:
        clips = hdf5.clip_names(f)
        action(f, clips)


def nan_feature(root):
    def action(f, clips):
        f[clips[3]][2, 1] = numpy.nan
        del f[clips[3]].attrs[hdf5.CHECKSUM]  # as in files of earlier form
    change(root / variants.TRAIN_HDF5, action)


def no_statistics(root):
    change(root / variants.TRAIN_HDF5, lambda f, _: f['.about'].__delitem__('statistics'))


def other_width(root):
    def action(f, clips):
        for name in clips:
            data = f[name][:, :4]
            del f[name]
            f[name] = data
        f.attrs['n_features'] = 4
    change(root / variants.TEST_HDF5, action)


def one_clip_of_other_width(root):
    def action(f, clips):
        del f[clips[3]]
        f[clips[3]] = numpy.zeros((5, 7), 'f')
    change(root / variants.TRAIN_HDF5, action)


def no_frame(root):
    def action(f, clips):
        del f[clips[3]]
        f[clips[3]] = numpy.zeros((0, 6), 'f')
    change(root / variants.TRAIN_HDF5, action)


def unknown_class(root):
    path = root / variants.LISTS / 'trainlist01.txt'
    path.write_text('Juggling/v_Juggling_g01_c01.avi 1\n' + path.read_text())


def another_frame_model(root):
    change(root / variants.TEST_HDF5, lambda f, _: smallSet.say(f, model_sha256='another'))


BAD = [(nan_feature, (), 'v_Archery_g02_c02 holds a number that is not finite'),
       (no_statistics, (), 'normalizeData.py'),
       (other_width, (), 'features of length 4'),
       (one_clip_of_other_width, (), 'v_Archery_g02_c02 has shape (5, 7)'),
       (no_frame, (), 'v_Archery_g02_c02 has no frame'),
       (unknown_class, (), 'trainlist01.txt:1: class "Juggling"'),
       (another_frame_model, (), 'another VGG_1024.model'),
       (lambda root: (root / variants.TRAIN_HDF5).unlink(), (), 'save_hdf5.py'),
       (lambda root: None, ('--lr', '1e30', '--clip', '0'), 'lower --lr'),
       (lambda root: None, ('--test-only',), 'RNN.model'),
       (lambda root: None, ('--inference', 'some'), 'segments:N')]


@pytest.mark.parametrize('spoil,flags,why', BAD, ids=[why for _, _, why in BAD])
def test_bad_input_is_one_clear_line(packed, spoil, flags, why):
    spoil(packed)
    done = subprocess.run([sys.executable, 'rnn.py', '--root', str(packed), '--tiny', *flags],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 2)
    assert 'Traceback' not in done.stderr and 'Exception' not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert 'error: ' in last and why in last
    if done.returncode == 1:
        assert len(done.stderr.splitlines()) == 1


def test_training_on_a_terminal_shows_chainers_progress_bar(tmp_path):
    featureSet.make_features(tmp_path)
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / 'rnn.py', '--tiny', '--epochs', '3', '--root', tmp_path],
        stdout=follower, stderr=subprocess.PIPE)
    os.close(follower)
    shown = b''
    try:
        while block := os.read(leader, 1 << 16):
            shown += block
    except OSError:  # how Linux ends a terminal whose other side is closed
        pass
    finally:
        os.close(leader)
    assert process.wait(timeout=60) == 0, process.stderr.read().decode()
    assert b'this epoch [' in shown and b'3 epoch / 3 epochs' in shown
