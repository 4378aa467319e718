"""results.py against tables, intervals and tests worked out by hand."""
import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import results
from engine.errors import UserError
from engine.reporting import means
from engine.reporting.predictionfile import write_predictions
from engine.reporting.resultsfile import read_results

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ['Archery', 'Bowling']
NAMES = [f'v_Archery_g{i:02d}_c01' for i in range(1, 11)]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the script in this process: (exit code, what it printed, its errors)."""
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['results.py', *map(str, arguments)])
        try:
            code, refused = results.main() or 0, ''
        except UserError as error:
            code, refused = 1, str(error)
        printed = capsys.readouterr()
        return code, printed.out, printed.err + refused
    return run


def line(method, top1, **more):
    return {**dict(method=method, split=1, unit='video', n=3783, top1=top1, top5=0.8, top10=0.9,
                   loss=1.5, seed=0, settings={}), **more}


def write(root, lines):
    (root / 'results.jsonl').write_text(
        ''.join((text if isinstance(text, str) else json.dumps(text)) + '\n' for text in lines))


@pytest.fixture
def root(tmp_path):
    shared = {'clip': 5, 'steps': 120}
    write(tmp_path, [
        line('frames', 0.553, unit='frame', n=700210),
        line('frames', 0.626, top5=0.853, top10=0.915),
        line('LSTM', 0.66, settings={**shared, 'layers': 1}, seconds=311.6),
        line('LSTM', 0.68, settings={**shared, 'layers': 1}, seed=1),
        line('LSTM', 0.648, settings={**shared, 'layers': 2}),
        line('demo', 0.9, n=40, top5=None, top10=None),
    ])
    return tmp_path


def test_table_in_80_columns(root):
    done = subprocess.run(
        [sys.executable, 'results.py', '--root', str(root)], cwd=REPOSITORY,
        env=dict(os.environ, PYTHONWARNINGS='error'), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, '')
    rows = done.stdout.splitlines()
    assert max(map(len, rows)) <= 80
    cells = [row.split() for row in rows]
    assert cells[0] == '# method unit split n top1 top5 top10 seed seconds'.split()
    assert cells[1] == '1 frames frame 1 700210 55.3 80.0 90.0 0 -'.split()
    assert cells[2] == '2 frames video 1 3783 62.6 85.3 91.5 0 -'.split()
    assert cells[3] == '3 LSTM video 1 3783 66.0 80.0 90.0 0 312'.split()
    assert cells[4] == ['layers=1']  # clip and steps are the same in all runs
    assert cells[-1] == '6 demo video 1 40 90.0 - - 0 -'.split()


def test_mean_over_splits(tmp_path, run):
    """Split 1 was run with two seeds: (0.60 + 0.70)/2 = 0.65; 0.65, 0.71 and 0.80 give 0.72, and
    the deviation is sqrt((0.07^2 + 0.01^2 + 0.08^2)/2) = sqrt(0.0057) = 0.0755."""
    runs = {1: [(0.60, 0), (0.70, 1)], 2: [(0.71, 0)], 3: [(0.80, 0)]}
    for split, lines in runs.items():
        (tmp_path / str(split)).mkdir()
        write(tmp_path / str(split), [
            line('LSTM', top1, split=split, n=3783 - 40 * split, seed=seed, settings={'layers': 1})
            for top1, seed in lines] + [line('frames', 0.5, split=split)] * (split < 3))
    roots = [word for split in runs for word in ('--root', tmp_path / str(split))]
    code, out, _ = run(*roots, '--mean', 'splits')
    rows = out.splitlines()
    assert code == 0 and max(map(len, rows)) <= 80
    assert rows[1].split()[:6] == ['1', 'LSTM', 'video', '1,2,3', str(3 * 3783 - 240), '72.0']
    assert rows[1].split()[6:8] == ['±', '7.5'] and rows[1].split()[-1] == '0,1'
    assert rows[2].split()[1:8] == ['frames', 'video', '1,2', '7566', '50.0', '±', '0.0']
    assert 'a line of fewer does not compare' in out
    one, = means.mean_over_splits([line('x', 0.3, split=2)])
    assert one['top1'] == (0.3, None) and one['split'] == '2'
    # other settings, units and methods stay apart
    for other in ({'settings': {'layers': 2}}, {'unit': 'frame'}, {'method': 'y'},
                  {'test_only': True}):
        assert len(means.mean_over_splits([line('x', 0.1), {**line('x', 0.3, split=2), **other}])
                   ) == 2


@pytest.mark.skipif(not shutil.which('make'), reason='no make')
def test_make_splits(tmp_path):
    """Every stage runs on each split, in a root of its own; a stand-in for Python notes how."""
    python = tmp_path / 'venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(f'''#!/bin/sh
echo "$@" >>{tmp_path}/log
case $1 in
    frameBasedTrain.py) made=VGG_1024.model ;;
    save_hdf5.py) made=train1024.hdf5 ;;
    rnn.py) made=RNN.model ;;
    *) exit ;;
esac
echo "$1" >"$3/$made"
''')
    python.chmod(0o755)
    (tmp_path / 'venv' / 'ready').touch()
    command = ['make', 'splits', f'VENV={tmp_path}/venv', f'ROOT={tmp_path}/root',
               'RNN_FLAGS=--layers 2']
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode and 'run first: make demo, or python getData.py' in done.stderr
    for name in ('UCF-101', 'ucfTrainTestlist', 'VGG.model'):
        (tmp_path / 'root' / name).mkdir(parents=True)
    for name in ('classInd', 'trainlist01', 'testlist01'):
        (tmp_path / 'root' / 'ucfTrainTestlist' / f'{name}.txt').touch()
    for _ in range(2):  # the second time all is done but the tables
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    log = [line.split(' ') for line in (tmp_path / 'log').read_text().splitlines()]
    for split in (1, 2, 3):
        root = tmp_path / 'root' / f'split{split}'
        assert (root / 'VGG.model').resolve() == tmp_path / 'root' / 'VGG.model'
        of_root = [line for line in log if str(root) in line and '--mean' not in line]
        stages = [os.path.basename(line[0]) for line in of_root]
        assert stages == ['frameBasedTrain.py', 'saveFeatures_1024.py', 'saveFeatures_1024.py',
                          'save_hdf5.py', 'normalizeData.py', 'singleFrameAccuracy.py', 'rnn.py',
                          'confusion.py', 'results.py', 'results.py']
        for line in of_root[:-2]:
            assert line[line.index('--split') + 1] == str(split)
        assert ' '.join(of_root[6]).endswith('--layers 2')
    assert log[-1] == ['results.py', '--mean', 'splits'] + [
        word for split in (1, 2, 3) for word in ('--root', f'{tmp_path}/root/split{split}')]


def test_long_names_and_settings_stay_within_80_columns(root, run):
    write(root, [line('a method with a name as long as a sentence', 0.5, n=1000000, seconds=1e5,
                      settings={f'setting_number_{i}': [i, seed] for i in range(9)}, seed=seed)
                 for seed in range(12)])
    for option in ([], ['--mean']):
        code, out, errors = run('--root', root, *option)
        assert max(map(len, out.splitlines())) <= 80


def test_mean_over_seeds(root, run):
    code, out, errors = run('--root', root, '--mean')
    row = next(row for row in out.splitlines() if ' LSTM ' in row)
    # (66 + 68) / 2 and sqrt((1 + 1) / 1)
    assert '67.0 ± 1.4' in row and ' 0,1 ' in row
    assert any('64.8 ' in row and '±' not in row for row in out.splitlines())


def test_what_was_made_otherwise_is_never_joined(tmp_path, run):
    """Features of another step, other lists and older lines that do not tell stay apart, said."""
    def made(step, lists='a', **more):
        return dict(made_with={'step': step, 'network': {'lr': 0.1}}, classes='c', lists=lists,
                    **more)
    folds = [line('LSTM', 0.5, fold='1/2', **made(1)), line('LSTM', 0.7, fold='2/2', **made(4))]
    write(tmp_path, folds)
    code, out, _ = run('--root', tmp_path, '--mean', 'folds')
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert ('runs 1-2 of LSTM are not joined, as they were made otherwise: step=1 against step=4'
            in ' '.join(out.split()))
    assert '±' not in out.splitlines()[1] and 'run 2: has folds 2 of 2, lacks 1' in out
    assert 'each line is of one run: no two differ in their folds alone' in out
    for other, words in ((made(1, 'b'), 'other lists'),
                         ({**made(1, 'b'), 'classes': 'd'}, 'other classes'),
                         (made(1, n_classes=5), 'no n_classes told against n_classes=5'),
                         ({}, 'or an older line does not tell which')):
        write(tmp_path, [folds[0], line('LSTM', 0.7, fold='2/2', **other)])
        out = ' '.join(run('--root', tmp_path, '--mean', 'folds')[1].split())
        assert 'runs 1-2 of LSTM are not joined' in out and words in out
        assert len(means.mean_over_seeds([line('x', 0.1, **made(1)),
                                          line('x', 0.1, seed=1, **other)])) == 2
    write(tmp_path, [folds[0], line('LSTM', 0.7, fold='2/2', **made(1))])
    out = run('--root', tmp_path, '--mean', 'folds')[1]
    assert '60.0 ± 14.1' in out and 'not joined' not in out


def test_a_root_that_is_a_link_to_another_counts_once(root, tmp_path, run):
    link = tmp_path.parent / f'{tmp_path.name}.link'
    link.symlink_to(root)
    for roots in ((root, link), (root, root / '..' / root.name)):
        code, out, errors = run(*(word for one in roots for word in ('--root', one)), '--mean')
        assert code == 0 and f'{roots[1]}: the same results.jsonl as in {root}' in errors
        assert ' 0,1 ' in next(row for row in out.splitlines() if ' LSTM ' in row)


def test_means_of_single_runs_have_no_heading_of_deviations(tmp_path, run):
    write(tmp_path, [line('x', 0.5)])
    out = run('--root', tmp_path, '--mean')[1]
    assert '±' not in out and 'no two differ in their seeds alone' in out


def test_lines_that_are_no_result_are_named_and_skipped(root, run):
    odd = ['', '{"method": "cut o', '[1, 2]', '{"method": "no figures"}',
           json.dumps(line('x', 0.1, seed=[0])), json.dumps(line('x', 0.1, predictions=1)),
           json.dumps(line('x', 0.1, n=True)), '[' * 100000, '\0' * 50]
    fair = [line('nothing measured', math.nan, loss=math.inf, top5='x'),
            line('a\u2028b', 0.5)]  # no end of a line in JSON
    with open(root / 'results.jsonl', 'a') as f:
        f.write('\n'.join(odd + [json.dumps(one, ensure_ascii=False) for one in fair])
                + '\n{"method": "LSTM", "split": 1, "un')
    code, out, errors = run('--root', root)
    assert code == 3
    faults = errors.splitlines()
    assert [fault.split(': ')[0] for fault in faults] == [
        f'{root / "results.jsonl"}:{number}' for number in (*range(8, 16), 18)]
    for fault, why in zip(faults, ('not JSON', 'not a JSON object', 'unit, split, n', 'seed',
                                   'predictions', 'no usable n', 'not JSON', 'not JSON',
                                   'not JSON')):
        assert why in fault and fault.endswith('skipped')
    assert '6  demo' in out and '8  a' in out
    assert re.search(r'7  nothing measured +video +1 +3783 +- +- +90.0 ', out)
    assert run('--root', root, '--mean')[0] == 3


def test_a_root_without_results_is_named_and_the_others_shown(root, tmp_path, run):
    code, out, errors = run('--root', tmp_path / 'none', '--root', root)
    assert code == 3 and 'none/results.jsonl: not there' in errors and '6  demo' in out


def test_missing_file_says_what_makes_it(tmp_path, run):
    code, out, errors = run('--root', tmp_path)
    assert code == 1
    assert 'singleFrameAccuracy.py' in errors and 'Traceback' not in errors


def test_top_k_of_too_few_classes_says_nothing(root, run):
    write(root, [line('x', 0.5, n_classes=5, top5=1.0, top10=1.0)])
    assert run('--root', root)[1].splitlines()[1].split()[5:8] == ['50.0', '-', '-']


def test_several_roots_and_selection(root, tmp_path, run):
    second = tmp_path / 'second'
    second.mkdir()
    write(second, [line('there', 0.7, split=2)])
    code, out, errors = run('--root', root, '--root', second)
    assert '7  there' in out and '1  frames' in out
    code, out, errors = run('--root', root, '--root', second, '--split', '2')
    assert '1  there' in out and 'frames' not in out
    assert 'frame ' not in run('--root', root, '--unit', 'video')[1]


def test_a_mean_over_roots_names_them_all(tmp_path, run):
    roots = [tmp_path / name for name in ('a', 'b')]
    for seed, folder in enumerate(roots):
        folder.mkdir()
        write(folder, [line('LSTM', 0.5 + seed / 4, seed=seed)])
    out = run('--root', roots[0], '--root', roots[1], '--mean')[1]
    assert '62.5 ± 17.7' in out and f'root={roots[0]},{roots[1]}' in ''.join(out.split())


def test_lines_of_a_copied_root_count_once(tmp_path, run):
    roots = [tmp_path / name for name in ('a', 'b')]
    for folder in roots:
        folder.mkdir()
        write(folder, [line('LSTM', 0.5, time='2026-11-27T09:00:00+0000'), line('GRU', 0.5)])
    code, out, errors = run('--root', roots[0], '--root', roots[1])
    assert code == 0 and (out.count('LSTM'), out.count('GRU')) == (1, 2)
    assert errors == (f'{roots[1]}: 1 line of results.jsonl copied from {roots[0]}, or to it; '
                      'counted once\n')


def test_markdown_and_csv(root, run):
    code, out, errors = run('--root', root, '--markdown', root / 'r.md', '--csv', root / 'r.csv')
    assert code == 0, errors
    lines = (root / 'r.md').read_text().splitlines()
    assert len(lines) == 8 and len({text.count('|') for text in lines}) == 1
    assert '| 3 | LSTM | video | 1 | 3783 | 66.0 | 80.0 | 90.0 | 0 | 312 | layers=1 |' in lines
    with open(root / 'r.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert rows[2]['method'] == 'LSTM' and rows[2]['top1'] == '66.0'
    assert rows[2]['settings'] == 'layers=1'


# ---- what the clips say ------------------------------------------------------


@pytest.fixture
def compared(tmp_path):
    """Ten clips: run a gets 4 right, run b the same 4 and 5 more, and says so with 0.9. Losses:
    (4 ln 1/0.9 + 6 ln 1/0.1) / 10, (9 ln 1/0.9 + ln 1/0.1) / 10."""
    folder = tmp_path / 'ucfTrainTestlist'
    folder.mkdir()
    (folder / 'classInd.txt').write_text('1 Archery\n2 Bowling\n')
    (folder / 'trainlist01.txt').write_text('Bowling/v_Bowling_g20_c01.avi 2\n')
    (folder / 'testlist01.txt').write_text(''.join(f'Archery/{name}.avi\n' for name in NAMES))
    for method, right in (('a', 4), ('b', 9)):
        write_predictions(
            tmp_path / f'{method}.hdf5',
            [(name, np.float32([[0.9, 0.1] if i < right else [0.1, 0.9]] * 2))
             for i, name in enumerate(NAMES)], CLASSES, method, 1)
    write(tmp_path, [line('a', 0.4, n=10, predictions='a.hdf5', loss=1.42370),
                     line('b', 0.9, n=10, predictions='b.hdf5', loss=0.32508),
                     line('old', 0.1, n=10, predictions='b.hdf5'),
                     line('none', 0.5, n=10)])
    return tmp_path


@pytest.mark.parametrize('names', [('a', 'b'), ('1', '2')])
def test_compare_two_runs(compared, names, run):
    code, out, errors = run('--root', compared, '--compare', *names)
    assert code == 0, errors
    assert ('10 clips: right in both 4, in A alone 0, in B alone 5, in neither 1'
            in out)
    assert '+50.00 points; McNemar exact p = 0.0625' in out


def test_interval_column(compared, run):
    code, out, errors = run('--root', compared, '--interval')
    rows = out.splitlines()
    assert code == 0
    assert '10.0 to 70.0' in rows[1]  # Binomial(10, 0.4): 2.5 and 97.5 % points 1 and 7
    assert '70.0 to 100.0' in rows[2]
    assert 'written over' in errors and ' to ' not in rows[3] + rows[4]


def test_interval_over_groups(compared, run):
    """Of two groups one is all right, one all wrong: both, either or none may be drawn."""
    names = [f'v_Archery_g{group:02d}_c{i:02d}' for group in (1, 2) for i in range(5)]
    (compared / 'ucfTrainTestlist' / 'testlist01.txt').write_text(
        ''.join(f'Archery/{name}.avi\n' for name in names))
    write_predictions(compared / 'a.hdf5', [
        (name, np.float32([[0.9, 0.1] if '_g01_' in name else [0.1, 0.9]])) for name in names],
        CLASSES, 'a', 1)
    write(compared, [line('a', 0.5, n=10, predictions='a.hdf5', loss=None)])
    assert '0.0 to 100.0' in run('--root', compared, '--interval', 'groups')[1]
    assert '20.0 to 80.0' in run('--root', compared, '--interval', 'clips')[1]  # Binomial(10, 0.5)


def test_compare_takes_no_run_for_another_of_its_method(compared, run):
    with open(compared / 'results.jsonl', 'a') as f:
        f.write(json.dumps(line('a', 0.9, n=10, predictions='b.hdf5', seed=1, loss=0.32508)) + '\n')
    code, _, errors = run('--root', compared, '--compare', 'a', '2')
    assert code == 1 and 'give the number of one: 1, 5' in errors
    assert run('--root', compared, '--compare', '1', '2')[0] == 0


def test_a_file_of_another_run_is_not_taken_for_it_though_as_many_are_right(compared, run):
    with open(compared / 'results.jsonl', 'a') as f:
        f.write(json.dumps(line('c', 0.9, n=10, predictions='b.hdf5', loss=0.4)) + '\n')
    code, _, errors = run('--root', compared, '--compare', 'c', 'a')
    assert code == 1 and 'gives loss 0.3251, but the line of c (seed 0) says 0.4000' in errors


@pytest.mark.parametrize('names,why', [(('old', 'a'), 'written over'), (('none', 'a'), 'none'),
                                       (('a', '9'), 'runs 1 to 4')])
def test_compare_refuses_in_one_line(compared, names, why, run):
    code, out, errors = run('--root', compared, '--compare', *names)
    assert code == 1
    assert why in errors and len(errors.splitlines()) == 1


def test_prediction_of_no_number_is_refused(compared):
    write_predictions(compared / 'a.hdf5', [(NAMES[0], np.full((2, 2), np.nan))], CLASSES, 'a', 1)
    one, _ = read_results(compared / 'results.jsonl')
    with pytest.raises(UserError, match='no probability'):
        results.right_clips(one[0])


def test_mean_over_folds_counts_each_fold_once_and_names_those_that_lack(tmp_path, run):
    write(tmp_path, [
        line('LSTM', 0.5, fold='1/4', seed=0, validation_accuracy=0.2, validation_n=10),
        line('LSTM', 0.7, fold='1/4', seed=1, validation_accuracy=0.4, validation_n=10),
        line('LSTM', 0.8, fold='2/4', seed=0, validation_accuracy=0.5, validation_n=12),
        line('LSTM', 0.9, fold='4/4', seed=0, validation_accuracy=0.6, validation_n=12),
        line('LSTM', 0.1, fold='1/5', validation_accuracy=0.1),  # of other folds
        line('LSTM', 0.95), line('LSTM', 0.85, seed=1)])
    joined, other, plain = means.mean_over_folds(read_results(tmp_path / 'results.jsonl')[0])
    assert joined['top1'] == (pytest.approx((0.6 + 0.8 + 0.9) / 3), pytest.approx(
        np.std([0.6, 0.8, 0.9], ddof=1)))
    assert joined['validation_accuracy'][0] == pytest.approx((0.3 + 0.5 + 0.6) / 3)
    assert (joined['fold'], joined['missing'], joined['seed'], joined['runs']) == (
        '1-2,4/4', [3], '0,1', 4)
    assert other['fold'] == '1/5' and other['top1'] == (0.1, None)
    assert plain['top1'][0] == pytest.approx(0.9) and 'fold' not in plain
    code, out, _ = run('--root', tmp_path, '--mean', 'folds')
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert 'run 1: has folds 1-2,4 of 4, lacks 3; made by --fold 3/4' in out
    # By seeds alone, folds are kept apart.
    assert len(means.mean_over_seeds(read_results(tmp_path / 'results.jsonl')[0])) == 5
    write(tmp_path, [line('LSTM', 0.5), line('LSTM', 0.5, fold='7/3/2')])
    assert 'no run is of a fold' in run('--root', tmp_path, '--mean', 'folds')[1]


def test_learning_curve_is_written_as_table_and_picture(tmp_path, run):
    write(tmp_path, [line('LSTM', 0.9), line('LSTM', 0.5, settings={'train_share': 0.1}),
                     line('LSTM', 0.7, settings={'train_share': 0.1}, seed=1)])
    code, out, _ = run('--root', tmp_path, '--learning-curve', tmp_path / 'curve.csv')
    assert code == 0 and f'wrote {tmp_path}/curve.csv and ' in out
    with open(tmp_path / 'curve.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [(row['share %'], row['top-1 %'], row['seeds']) for row in rows] == [
        ('10', '60.0', '2'), ('100', '90.0', '1')]
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')
    write(tmp_path, [line('LSTM', 0.9)])
    code, _, refused = run('--root', tmp_path, '--learning-curve', tmp_path / 'other')
    assert code == 1 and 'no two runs of one kind' in refused and 'rnn.py --train-share' in refused
