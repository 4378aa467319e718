"""--fold K/N through the stages, on imported features, which need no stages 1 and 2."""
import functools
import json
import sys
from types import SimpleNamespace

import h5py
import numpy
import pytest

import combine
import featureSet
import frameBasedTrain
import helperFunctions as hf
import importFeatures
import normalizeData
import results
import rnn
import save_hdf5
import smallSet
from engine import hdf5
from engine.errors import UserError
from engine.learning import statistics
from engine.reporting.predictionfile import write_predictions
from engine.reporting.readout import read_method
from engine.reporting.resultsfile import append_result
from engine.weights.card import read_card
from featureSet import lines_of

FOLDS = (1, 2, 3)
RNN = ('--tiny', '--epochs', 1, '--cell', 'mean', '--name', 'deep')


@pytest.fixture
def call(call_in, tmp_path):
    """call_in with this root."""
    return functools.partial(call_in, tmp_path)


@pytest.fixture
def root(tmp_path, call):
    """A root with imported features of 30 training clips of 5 groups, packed in three folds."""
    lists = featureSet.make_features(tmp_path)
    for path in tmp_path.glob('*.hdf5'):
        path.unlink()
    random = numpy.random.RandomState(0)
    (tmp_path / 'there').mkdir()
    for clip in lists.train + lists.test:
        x = random.randn(random.randint(4, 12), 5)
        x[:, clip.label] += numpy.linspace(0, 3, len(x))
        numpy.save(tmp_path / 'there' / f'{clip.name}.npy', x)
    call(importFeatures, tmp_path / 'there')
    for k in FOLDS:
        for stage in (save_hdf5, normalizeData):
            call(stage, '--fold', f'{k}/3')
    return tmp_path


def test_every_clip_is_held_out_once_and_figures_are_means_of_the_folds(root, call, capsys):
    lists = hf.read_lists(root)
    clips = {clip.name: clip for clip in lists.train}
    seen = []
    for k in FOLDS:
        for seed in (0, 1) if k == 1 else (0,):
            call(rnn, *RNN[:-1], f'deep{seed}', '--fold', f'{k}/3', '--seed', seed)
        with h5py.File(root / f'train1024_fold{k}of3.hdf5') as f:
            held_out = set(hdf5.read_names(f, 'held_out'))
            rows = numpy.concatenate([f[name][()] for name in clips if name not in held_out])
            mean, std = statistics.read(f)
        # The statistics are those of the clips that are learned from.
        numpy.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-6)
        numpy.testing.assert_allclose(std, rows.std(axis=0), rtol=1e-6)
        with h5py.File(root / f'deep0_fold{k}of3_validationPredictions.hdf5') as f:
            assert held_out == set(f)
        assert read_card(root / f'deep0_fold{k}of3.model')['fold'] == f'{k}/3'
        seen += held_out
        groups = {clips[name].group for name in held_out}
        assert not groups & {clip.group for clip in lists.train if clip.name not in held_out}
    assert sorted(seen) == sorted(clips)
    lines = lines_of(root)
    # What tells whether they may be joined.
    made_with, = {json.dumps(line['made_with']) for line in lines}
    assert json.loads(made_with) == {'step': 1, 'views': 1, 'dtype': 'float32', 'n_features': 5,
                                     'imported': 'there'}
    assert len({(line['classes'], line['lists']) for line in lines}) == 1
    assert [line['fold'] for line in lines] == ['1/3', '1/3', '2/3', '3/3']
    assert [line['validation_n'] for line in lines] == [12, 12, 12, 6]
    capsys.readouterr()
    call(results, '--mean', 'folds', '--csv', root / 'table.csv')
    out = capsys.readouterr().out
    by_fold = [numpy.mean([line['validation_accuracy'] for line in lines if line['fold'] == fold])
               for fold in ('1/3', '2/3', '3/3')]
    row, = [dict(zip(*(text.split(',') for text in (root / 'table.csv').read_text().splitlines())))]
    assert row['fold'].strip('"') == '1-3/3'
    val = f'{100 * numpy.mean(by_fold):.1f} ± {100 * numpy.std(by_fold, ddof=1):.1f}'
    assert row['val'] == val
    assert f'run 1: val {val}, of 30 clips of the training list, each held out in one fold' in out


def test_names_keep_folds_apart(root, call):
    with pytest.raises(UserError, match='deep_fold1of3: the name of a run of fold 1/3; add '
                                        '--fold 1/3'):
        call(rnn, *RNN[:-1], 'deep_fold1of3', '--fold', '2/3')
    with pytest.raises(UserError, match='start_fold1of3.*: the name of a run of fold 1/3'):
        call(rnn, *RNN, '--fold', '2/3', '--start-from', 'start_fold1of3')
    call(rnn, *RNN, '--fold', '1/3')
    # Another fold's file under this one's name is seen through.
    for kind in ('train', 'test'):
        (root / f'{kind}1024_fold2of3.hdf5').replace(root / f'{kind}1024_fold1of3.hdf5')
    with pytest.raises(UserError, match='made with --fold 2/3, not 1/3; make it again: python '
                                        'save_hdf5.py --fold 1/3'):
        call(rnn, *RNN, '--fold', '1/3', '--restart')
    # Nor do files that tell of no fold become those of one by their names.
    call(save_hdf5)
    call(normalizeData)
    for path in list(root.glob('t*1024.hdf5')):
        path.replace(path.with_name(f'{path.stem}_fold1of3.hdf5'))
    with pytest.raises(UserError, match='made without --fold, not 1/3; make it again: python save'):
        call(rnn, *RNN, '--fold', '1/3', '--restart')
    name = 'deep_fold1of3_testPredictions.hdf5'
    with pytest.raises(UserError, match='of --fold 1/3, which its name does not tell; rename it'):
        other = (root / name).rename(root / 'deep_testPredictions.hdf5')
        read_method(other, hf.read_lists(root))
    with pytest.raises(UserError, match='of no fold, but its name tells --fold 1/3; rename it'):
        write(root, 'deep_testPredictions.hdf5', hf.read_lists(root).test, 0)
        read_method(other.rename(root / name), hf.read_lists(root))
    with pytest.raises(UserError, match='test1024_fold9of9.hdf5: .*save_hdf5.py --fold 9/9'):
        call(rnn, *RNN, '--fold', '9/9')
    with pytest.raises(UserError, match='has 5 groups, so at most 5 folds'):
        call(save_hdf5, '--fold', '9/9')


@pytest.mark.parametrize('text', ['0/3', '4/3', '1/1', '1', '1/', '/3', '1/3/5', '-1/3', '1.5/3',
                                  '٢/٣', 'one/two', '1/' + '9' * 5000])
def test_no_fold_is_refused(text, call, capsys):
    with pytest.raises(SystemExit):
        call(rnn, '--fold', text)
    assert 'argument --fold: ' in capsys.readouterr().err


def write(root, name, clips, seed):
    """A file of made-up predictions, one row a clip."""
    rows = numpy.random.RandomState(seed).dirichlet(numpy.ones(3), len(clips))
    write_predictions(root / name, zip([clip.name for clip in clips], rows[:, None]),
                      featureSet.CLASSES, name.split('_')[0], 1)
    return numpy.log(rows.astype(numpy.float32))


def test_weights_of_a_combination_are_chosen_over_all_folds(tmp_path, call, capsys):
    lists = featureSet.make_features(tmp_path)
    logs, labels = [], []
    for k in FOLDS:
        held_out = hf.hold_out_fold(lists.train, f'{k}/3')[1]
        labels += [clip.label for clip in held_out]
        logs.append([write(tmp_path, f'{name}_fold{k}of3_validationPredictions.hdf5', held_out,
                           10 * k + i) for i, name in enumerate(('deep', 'flat'))])
        for name in ('deep', 'flat'):
            write(tmp_path, f'{name}_fold{k}of3_testPredictions.hdf5', lists.test, k)
    files = 'deep_testPredictions.hdf5', 'flat_testPredictions.hdf5'
    for i, name in enumerate(files):
        write(tmp_path, name, lists.test, i)
    for name, lr in (('deep', 1), ('deep_fold1of3', 1), ('deep_fold2of3', 2), ('flat', 1)):
        append_result(tmp_path, name.split('_')[0], 1, 'video', 0, {'lr': lr}, n=6,
                      predictions=f'{name}_testPredictions.hdf5')
    for fold, step in ((1, 1), (3, 4)):
        append_result(tmp_path, 'flat', 1, 'video', 0, {'lr': 1}, n=6, made_with={'step': step},
                      predictions=f'flat_fold{fold}of3_testPredictions.hdf5')
    append_result(tmp_path, 'flat', 1, 'video', 0, {'lr': 1}, n=6, made_with={'step': 1},
                  predictions='flat_testPredictions.hdf5')
    call(combine, *files, '--choose', '--folds', 3)
    out = capsys.readouterr().out
    assert ('made from other features or lists than 1 of its folds, flat_fold3of3_testPredictions'
            '.hdf5 first (step=1 against step=4); the weights are those that suit these') in out
    assert 'deep_testPredictions.hdf5: no results.jsonl tells how 1 of its folds were made' in out
    assert 'weights by 30 of 30 clips of the training list, of 3 folds' in out
    assert out.count('other settings') == 1 and (
        'than 1 of its folds, deep_fold2of3_testPredictions.hdf5 first' in out)
    line = lines_of(tmp_path)[-1]
    assert line['settings']['folds'] == 3 and 'fold' not in line
    assert line['settings']['weights'] == pytest.approx(
        combine.choose(numpy.concatenate(logs, axis=1), labels))
    # Files of one fold make one of that fold; those of several cannot choose.
    of_fold = [name.replace('_', '_fold1of3_') for name in files]
    call(combine, *of_fold, '--choose')
    assert (tmp_path / 'combined_fold1of3_testPredictions.hdf5').exists()
    assert lines_of(tmp_path)[-1]['fold'] == '1/3'
    call(combine, of_fold[0], of_fold[1].replace('1of3', '2of3'), '--name', 'all')
    assert 'fold' not in lines_of(tmp_path)[-1]
    assert 'the files are of several folds (1/3, 2/3): what comes of them is of no fold' in (
        capsys.readouterr().out)
    for flags, why in (((of_fold[0], files[1], '--choose'), 'of several folds .1/3, none.'),
                       ((*of_fold, '--choose', '--folds', 3), 'give the files of the runs without'),
                       ((*files, '--folds', 3), '--folds: beside --choose')):
        with pytest.raises(UserError, match=why):
            call(combine, *flags)
    (tmp_path / 'deep_fold2of3_validationPredictions.hdf5').unlink()
    with pytest.raises(UserError, match='deep_fold2of3_validationPredictions.hdf5: .*python rnn.py '
                                        '--fold 2/3 --name deep'):
        call(combine, *files, '--choose', '--folds', 3)
    # With the flags of the run that is not of a fold, where its line tells them.
    with open(tmp_path / 'results.jsonl', 'a') as f:
        f.write(json.dumps({**lines_of(tmp_path)[0], 'command': 'python rnn.py --name deep --lr 1'})
                + '\n')
    with pytest.raises(UserError, match='made by: python rnn.py --name deep --lr 1 --fold 2/3'):
        call(combine, *files, '--choose', '--folds', 3)


def test_stage_1_holds_out_the_fold_and_names_its_files(small_set, tmp_path, monkeypatch):
    root = smallSet.vgg_set(small_set, tmp_path / 'own')
    flags = ['frameBasedTrain.py', '--root', str(root), '--tiny', '--epochs', '1', '--features',
             '16', '--fold', '2/2']
    monkeypatch.setattr(sys, 'argv', flags)
    frameBasedTrain.main()
    card = read_card(root / 'VGG_1024_fold2of2.model')
    assert card['fold'] == '2/2' and card['held_out'] == sorted(
        clip.name for clip in hf.hold_out_fold(hf.read_lists(root).train, '2/2')[1])
    assert json.loads((root / 'frameTraining_fold2of2' / 'log').read_text())
    monkeypatch.setattr(sys, 'argv', [*flags, '--validation-every', '3'])
    with pytest.raises(UserError, match='--validation-every: not beside --fold'):
        frameBasedTrain.main()


def test_other_seeds_of_stage_1_hold_out_other_groups_as_snapshots_tell():
    clips = [hf.Clip(f'v_A_g{g:02d}_c01', 'A', 0, f'g{g:02d}', None) for g in range(20)]
    sides = {tuple(hf.hold_out_groups(clips, 5, seed)[1]) for seed in range(4)}
    assert len(sides) == 4
    assert [frameBasedTrain.held_out_by(SimpleNamespace(seed=seed, fold=fold))
            for seed, fold in ((0, None), (1, None), (1, '2/5'))] == [
                {}, {'held_out_seed': 1}, {'fold': '2/5'}]
