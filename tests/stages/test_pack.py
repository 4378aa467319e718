"""save_hdf5.py, normalizeData.py and singleFrameAccuracy.py, run as a person runs them."""
import json
import os
import re
import shlex
import shutil
import sys
from types import SimpleNamespace

import h5py
import numpy
import pytest

import helperFunctions as hf
from engine import hdf5, variants
from engine.reporting import predictionfile
import save_hdf5
from FusionNet import load_frame_network
from engine.learning import statistics
from engine.errors import UserError
from engine.weights import cardchecks
from engine.weights.card import keep_in_card
from engine.weights.modelfile import save_model
from normalizeData import Moments
from smallSet import run, run_stage, save_random_model


@pytest.fixture
def root(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / 'root', symlinks=True)


def saved(root, folder, clip):
    return numpy.load(variants.output_path(root, folder, clip))


def test_packed_features_are_the_npy_files(root):
    lists = hf.read_lists(root)
    for name, clips in (('train1024.hdf5', lists.train), ('test1024.hdf5', lists.test)):
        with h5py.File(root / name) as f:
            assert sorted(hdf5.clip_names(f)) == sorted(c.name for c in clips)
            for clip in clips:
                numpy.testing.assert_array_equal(
                    f[clip.name][()], saved(root, variants.FEATURES, clip))
                assert f[clip.name].chunks is None  # in one piece: a segment is one read
    with h5py.File(root / 'testPredictions1024.hdf5') as f:
        clip = lists.test[0]
        numpy.testing.assert_array_equal(
            f[clip.name][()], saved(root, variants.FRAME_PREDICTIONS, clip))


def test_float16(root):
    assert run_stage('save_hdf5.py', '--root', root, '--dtype', 'float16').returncode == 0
    clip = hf.read_lists(root).train[0]
    with h5py.File(root / 'train1024.hdf5') as f:
        assert f[clip.name].dtype == numpy.float16
        numpy.testing.assert_allclose(
            f[clip.name][()], saved(root, variants.FEATURES, clip), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('seen', ['trained_clips', 'held_out'])
def test_a_network_that_has_seen_test_clips_is_refused(root, seen):
    """As one of another root with other lists, copied here."""
    clip = hf.read_lists(root).test[1].name
    keep_in_card(root / variants.FRAME_MODEL, **{seen: [clip]})
    for command in (['save_hdf5.py'], ['saveFeatures_1024.py', 1, '--parts', 1]):
        done = run_stage(*command, '--root', root)
        assert done.returncode == 1 and 'Traceback' not in done.stderr
        assert f'has seen 1 of the {len(hf.read_lists(root).test)} test clips' in done.stderr
        assert clip in done.stderr and 'python frameBasedTrain.py' in done.stderr


def test_missing_clips_are_named_with_the_command_that_makes_them(root):
    lists = hf.read_lists(root)
    before = (root / 'train1024.hdf5').read_bytes()
    gone = variants.output_path(root, variants.FEATURES, lists.train[0])
    gone.unlink()
    done = run_stage('save_hdf5.py', '--root', root)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert str(gone) in done.stdout
    assert f'make them: ./saveFeatures.sh --local --root {root} (or without --local' in done.stderr
    assert (root / 'train1024.hdf5').read_bytes() == before
    assert run_stage('save_hdf5.py', '--root', root, '--allow-missing').returncode == 3
    with h5py.File(root / 'train1024.hdf5') as f:
        assert hdf5.read_names(f, 'missing') == [lists.train[0].name]
        assert lists.train[0].name not in f


def test_what_stage_2_failed_on_is_to_be_left_out_first_of_all(tmp_path, capsys):
    args = save_hdf5.get_parser().parse_args(['--root', str(tmp_path)])
    clips = [hf.Clip(name, 'A', 0, name, tmp_path / f'{name}.avi') for name in 'abc']
    (tmp_path / variants.FEATURES).mkdir()
    (tmp_path / variants.FEATURES / 'part02.txt').write_text('failed\tb\tb.avi: holds no video\n')
    for missing, says in (('b', '; go on without: --allow-missing, or mend them, then ./saveF'),
                          ('bc', '; make them: ./saveF'), ('abc', '; make them: ./saveF')):
        with pytest.raises(UserError, match=says):
            save_hdf5.refuse(args, dict.fromkeys(missing, 'not there'), clips)


@pytest.mark.parametrize('told, flags', [
    ('{"step": 4, "views": 2}', ' --step 4 --views 2'), ('{"step": 4}', ' --step 4'),
    ('{"step": 1}', ''), ('{"step": "$(rm)"}', ''), ('[]', ''), ('{', ''), ('', '')])
def test_advice_goes_on_as_the_features_there_were_made(tmp_path, told, flags):
    args = save_hdf5.get_parser().parse_args(['--root', str(tmp_path), '--stream', 'flow'])
    folder = tmp_path / variants.names_of(args).features
    folder.mkdir()
    (folder / 'extraction.json').write_text(told)
    assert variants.features_maker(args).startswith(
        f'./saveFeatures.sh --local --stream flow --root {tmp_path}{flags} (or')


@pytest.mark.parametrize('spoil, reason', [
    (lambda a: a[:-1], 'features, '),
    (lambda a: a[:, :-1], 'expected (frames,'),
    (lambda a: a.astype(numpy.float64), 'holds float64'),
    (lambda a: a * numpy.nan, 'not finite'),
    (lambda a: a[:0], 'no frame')])
def test_bad_features_are_not_packed(root, spoil, reason):
    path = variants.output_path(root, variants.FEATURES, hf.read_lists(root).train[0])
    numpy.save(path, spoil(numpy.load(path)))
    done = run_stage('save_hdf5.py', '--root', root)
    assert done.returncode == 1 and reason in done.stdout and 'Traceback' not in done.stderr


def test_a_bad_number_found_late_leaves_the_old_files_or_the_clip_out(root):
    lists = hf.read_lists(root)
    names = [variants.TRAIN_HDF5, variants.TEST_HDF5, variants.TEST_PREDICTIONS]
    before = [(root / name).read_bytes() for name in names]
    bad = lists.train[1], lists.test[-1]
    for clip, folder in zip(bad, (variants.FEATURES, variants.FRAME_PREDICTIONS)):
        path = variants.output_path(root, folder, clip)
        array = numpy.load(path)
        array[-1, -1] = numpy.inf
        numpy.save(path, array)
    done = run_stage('save_hdf5.py', '--root', root)
    assert done.returncode == 1 and all(clip.name in done.stdout for clip in bad)
    assert [(root / name).read_bytes() for name in names] == before
    assert run_stage('save_hdf5.py', '--root', root, '--allow-missing').returncode == 3
    for name, clips, left_out in zip(names, (lists.train, lists.test, lists.test),
                                     (bad[0], bad[1], bad[1])):
        with h5py.File(root / name) as f:
            assert hdf5.read_names(f, 'missing') == [left_out.name]
            assert (set(hdf5.clip_names(f))
                    == {clip.name for clip in clips} - {left_out.name})


def test_no_file_appears_before_all_are_written(root, monkeypatch):
    def add_names(f, key, names):
        if f.path.name == variants.TRAIN_HDF5 and key == 'held_out':  # the last of all
            raise UserError(f'{f.path}: full')
    monkeypatch.setattr(hdf5.NewFile, 'add_names', add_names)
    monkeypatch.setattr(sys, 'argv', ['save_hdf5.py', '--root', str(root)])
    before = {path: path.stat().st_ino for path in root.glob('*.hdf5')}
    with pytest.raises(UserError, match='full'):
        save_hdf5.main()
    assert len(before) == 4
    assert {path: path.stat().st_ino for path in root.glob('*.hdf5')} == before


def test_a_disk_too_small_is_refused_before_anything_is_written(root, monkeypatch):
    names = variants.Names()
    clips = hf.read_lists(root).train + hf.read_lists(root).test
    size = sum(variants.output_path(root, names.features, clip).stat().st_size for clip in clips)
    monkeypatch.setattr(sys, 'argv', ['save_hdf5.py', '--root', str(root)])
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=size - 1))
    before = (root / variants.TRAIN_HDF5).read_bytes()
    with pytest.raises(UserError, match='make room'):
        save_hdf5.main()
    assert (root / variants.TRAIN_HDF5).read_bytes() == before
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=size))
    assert save_hdf5.main() == 0


def test_a_feature_too_large_for_float16_is_named(root):
    clip = hf.read_lists(root).train[0]
    path = variants.output_path(root, variants.FEATURES, clip)
    array = numpy.load(path)
    array[0, 0] = 1e5
    numpy.save(path, array)
    done = run_stage('save_hdf5.py', '--root', root, '--dtype', 'float16')
    assert done.returncode == 1 and clip.name in done.stderr and '--dtype float32' in done.stderr
    assert run_stage('save_hdf5.py', '--root', root).returncode == 0


def test_features_of_another_model_are_not_packed(root):
    (root / variants.FRAME_MODEL).unlink()
    save_random_model(root, seed=1)
    done = run_stage('save_hdf5.py', '--root', root)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'another model' in done.stderr
    # what it says, done as it says it
    command = re.search(r'remove them: (.*), then make them again: (.*) \(or without --local',
                        done.stderr).groups()
    assert command[1] == f'./saveFeatures.sh --local --root {root}'
    for words in (command[0], f'{command[1]} --parts 1'):
        assert run('bash', '-c', words).returncode == 0
    assert run_stage('save_hdf5.py', '--root', root).returncode == 0


def test_commands_in_messages_run_as_they_stand(undisturbed, tmp_path):
    root = shutil.copytree(undisturbed, tmp_path / 'my root', symlinks=True)
    for path in root.glob('*.hdf5'):
        path.unlink()
    lists = (root / variants.LISTS).resolve()
    (root / variants.LISTS).unlink()
    (root / variants.LISTS).mkdir()
    shutil.copy(lists / 'classInd.txt', root / variants.LISTS)
    for kind in ('train', 'test'):  # of split 2 alone
        shutil.copy(lists / f'{kind}list01.txt', root / variants.LISTS / f'{kind}list02.txt')

    def paste(command, *flags):
        command = command.replace('python', shlex.quote(sys.executable), 1)
        done = run('bash', '-c', f'{command} {shlex.join(flags)}')
        assert done.returncode == 0, done.stderr
        return re.findall(r'python .*?(?=, python|$)', done.stdout.partition('next: ')[2].strip())
    where = f" --root '{root}' --split 2"
    done = run_stage('rnn.py', '--root', root, '--split', 2, '--tiny')
    assert done.returncode == 1
    pack, = re.findall('not there; made by: (.*)', done.stderr)
    assert pack == 'python save_hdf5.py' + where
    normalise, = paste(pack)
    accuracy, train = paste(normalise)
    assert train == 'python rnn.py' + where
    assert paste(accuracy) == []
    results, look = paste(train, '--tiny')
    assert (results, look) == (f"python results.py --root '{root}'", 'python confusion.py' + where)
    paste(results)
    paste(look)
    _, look = paste(train, '--tiny', '--name', 'deep')
    assert look == (f'python confusion.py{where} testPredictions1024.hdf5 '
                    'deep_testPredictions.hdf5')
    paste(look)
    done = run_stage('combine.py', '--root', root, '--split', 2, *look.split()[-2:])
    paste(done.stdout.partition('next: ')[2].strip())


def test_what_trained_the_network_reaches_the_results(root):
    model, card = load_frame_network(root / variants.FRAME_MODEL)
    (root / variants.FRAME_MODEL).unlink()
    save_model(root / variants.FRAME_MODEL, model, {**card, 'split': 1, 'seed': 7,
                                              'settings': {'lr': 0.01},
                                              'base': 'random (seed 3): fc8'})
    old = root / '.train1024.hdf5.abc.part'
    old.touch()
    os.utime(old, (0, 0))
    assert run_stage('save_hdf5.py', '--root', root).returncode == 0
    assert not old.exists()
    with h5py.File(root / 'testPredictions1024.hdf5', 'r+') as f:
        assert f.attrs['step'] == 1
        f.attrs['step'] = 4
        del f.attrs['readout']
    assert run_stage('singleFrameAccuracy.py', '--root', root).returncode == 0
    line = json.loads((root / 'results.jsonl').read_text().splitlines()[-1])
    assert (line['seed'], line['settings']) == (7, {'lr': 0.01, 'step': 4})
    # The same for the lines of rnn.py, whose settings are its own; no seed is in it.
    with h5py.File(root / 'train1024.hdf5') as f:
        said = hdf5.attributes(f)
    assert line['made_with'] == cardchecks.made_with_in('', said) == {
        'step': 1, 'views': 1, 'dtype': 'float32', 'base': 'random: fc8', 'shape': card['shape'],
        'network': {'lr': 0.01}}
    del said['made_with']  # as files of earlier code
    assert cardchecks.made_with_in('', said) == {'step': 1, 'views': 1}
    assert cardchecks.made_with_in('', {'made_with': '{}'}) == {}
    with pytest.raises(UserError, match='x.hdf5: its made_with.* cannot be read; make it again'):
        cardchecks.made_with_in('x.hdf5', {'made_with': '[1]'})


def test_files_of_another_split_are_refused_before_anything_is_done(root):
    shared = (root / variants.LISTS).resolve()
    (root / variants.LISTS).unlink()
    shutil.copytree(shared, root / variants.LISTS)
    for kind in ('train', 'test'):
        shutil.copy(shared / f'{kind}list01.txt', root / variants.LISTS / f'{kind}list02.txt')
    for script in ('singleFrameAccuracy.py', 'rnn.py'):
        done = run_stage(script, '--root', root, '--split', 2)
        assert done.returncode == 1 and 'made for split 1' in done.stderr
        assert 'python frameBasedTrain.py --split 2 --root ANOTHER' in done.stderr
    # as after a change of one file alone
    with h5py.File(root / variants.TEST_HDF5, 'r+') as f:
        f.attrs['split'] = 2
    done = run_stage('rnn.py', '--root', root, '--split', 2, '--tiny')
    assert done.returncode == 1 and variants.TRAIN_HDF5 in done.stderr
    assert not (root / 'RNN.model').exists()


def test_statistics_already_there_are_not_written_again(root):
    path = root / 'train1024.hdf5'
    with h5py.File(path) as f:
        mean, std = statistics.read(f)
        frames = int(f['.about/statistics/frames'][0])
    with h5py.File(path):  # who reads clips has no part in it
        statistics.store(path, mean + 1, std, frames)
        statistics.store(path, mean, std, frames)
    before = path.stat().st_mtime_ns
    assert run_stage('normalizeData.py', '--root', root).returncode == 0
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize('harm', [
    lambda f: f.attrs.pop('n_features'),
    lambda f: f['.about'].__delitem__('statistics'),
    lambda f: f.create_group('aGroup'),
    lambda f: f.create_dataset('aClip', data=[[1.0, 2.0]])])
def test_hdf5_of_another_origin_is_one_line(root, harm):
    with h5py.File(root / 'train1024.hdf5', 'r+') as f:
        harm(f)
    done = run_stage('normalizeData.py', '--root', root)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('error: ')
    assert 'python save_hdf5.py' in done.stderr


def test_sigterm_removes_the_half_written_file(tmp_path):
    code = ('import os, signal; from engine import stage; from engine.files import replacing\n'
            'def main():\n'
            '    with replacing("%s"):\n'
            '        os.kill(os.getpid(), signal.SIGTERM)\n'
            'stage.run(main)' % (tmp_path / 'whole'))
    done = run(sys.executable, '-c', code)
    assert done.returncode == 143 and not list(tmp_path.iterdir())
    assert done.stderr == ('stopped by SIGTERM; what is finished is kept, and the same command '
                           'goes on from there\n')


def test_moments_by_numpy_and_with_a_large_offset():
    rows = numpy.random.RandomState(0).normal(1e6, 1e-2, (1000, 3))
    rows[:, 2] = 7
    moments = Moments(3)
    for piece in numpy.split(rows, [1, 10, 500]):
        moments.add(piece)
    numpy.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-14)
    numpy.testing.assert_allclose(moments.deviation()[0], rows[:, 0].std(), rtol=1e-6)
    assert moments.deviation()[2] == 1  # never changes: 0 after the mean is gone, not NaN


def test_statistics_are_those_of_all_training_frames_and_stay_on_a_second_run(root):
    frames = numpy.concatenate([saved(root, variants.FEATURES, clip)
                                for clip in hf.read_lists(root).train]).astype(float)
    with h5py.File(root / 'train1024.hdf5') as f:
        mean, std = statistics.read(f)
        first = f[hf.read_lists(root).train[0].name][()]
    numpy.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-10, atol=1e-10)
    changing = frames.std(axis=0) > 1e-6
    numpy.testing.assert_allclose(std[changing], frames.std(axis=0)[changing], rtol=1e-9)
    before = (root / 'train1024.hdf5').read_bytes()
    assert run_stage('normalizeData.py', '--root', root).returncode == 0
    assert (root / 'train1024.hdf5').read_bytes() == before
    with h5py.File(root / 'train1024.hdf5') as f:  # the features themselves are untouched
        numpy.testing.assert_array_equal(f[hf.read_lists(root).train[0].name][()], first)


def test_half_written_statistics_are_not_believed(root):
    with h5py.File(root / 'train1024.hdf5', 'r+') as f:
        f['.about/statistics/mean'][0] += 1
    with h5py.File(root / 'train1024.hdf5') as f:
        with pytest.raises(UserError, match='normalizeData.py'):
            statistics.read(f)


def test_accuracy_by_hand(root):
    """Three clips, two right by video; by frame the long one weighs more."""
    lists = hf.read_lists(root)
    n = len(lists.classes)

    def sure(label, frames, p=0.9):
        rows = numpy.full((frames, n), (1 - p) / (n - 1))
        rows[:, label] = p
        return rows
    clips = lists.test[:3]
    wrong = (clips[2].label + 1) % n
    predictionfile.write_predictions(root / 'testPredictions1024.hdf5', [
        (clips[0].name, sure(clips[0].label, 10)), (clips[1].name, sure(clips[1].label, 2)),
        # more frames wrong, but the right ones are surer: the mean of log softmax decides
        (clips[2].name, numpy.concatenate([sure(wrong, 3, 0.6), sure(clips[2].label, 1, 0.7)]))],
        lists.classes, 'frames', 1)
    done = run_stage('singleFrameAccuracy.py', '--root', root)
    assert done.returncode == 0, done.stderr
    by_frame, by_video = [json.loads(line) for line in
                          (root / 'results.jsonl').read_text().splitlines()[-2:]]
    assert (by_frame['unit'], by_frame['n']) == ('frame', 16)
    assert by_frame['top1'] == pytest.approx(13 / 16)
    assert (by_video['unit'], by_video['n']) == ('video', 3)
    assert by_video['top1'] == pytest.approx(2 / 3)
    assert 'by frame' in done.stdout and 'by video' in done.stdout
