"""report.py: figures counted by hand, a page that stands alone, and one that a browser shows."""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import smallSet
import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import h5py
import numpy as np
import pytest

import report
from RNNNet import load_rnn
from engine.drawing import plotstyle
from engine.errors import UserError
from engine.reporting.predictionfile import write_predictions
from engine.reporting.resultsfile import append_result
from engine.reporting.runs import read_run
from engine.variants import Names
from helperFunctions import read_lists
from pageReader import Page
from predictionSet import CLASSES, NAMES, SAID_A, SAID_B, one_hot, write_lists

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser',
                                                'google-chrome'))), None)


def write_log(root, folder, losses=(2.0, 1.0, 1.5)):
    (root / folder).mkdir(parents=True)
    (root / folder / 'log').write_text(json.dumps([
        {'epoch': i, 'main/loss': loss / 2, 'main/accuracy': 0.5, 'validation/main/loss': loss,
         'validation/main/accuracy': 0.25} for i, loss in enumerate(losses, 1)]))


def write_run(root, name, method, said, top1):
    path = root / ('testPredictions1024.hdf5' if name == 'frames'
                   else f'{name}_testPredictions.hdf5')
    write_predictions(path, zip(NAMES, map(one_hot, said)), CLASSES, method, 1)
    append_result(root, method, 1, 'video', 0, {}, n=10, top1=top1, top5=None, top10=None,
                  loss=1.0, predictions=path.name)


@pytest.fixture
def root(tmp_path):
    write_lists(tmp_path)
    write_run(tmp_path, 'frames', 'frames', SAID_A, 0.6)
    write_run(tmp_path, 'RNN', 'LSTM 1x8', SAID_B, 0.7)
    write_log(tmp_path, 'frameTraining')
    write_log(tmp_path, 'RNN.training')
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the stage in this process: (exit code, the page, its lines of what is missing)."""
    def run(root, *arguments):
        monkeypatch.setattr(sys, 'argv', ['report.py', '--root', str(root),
                                          *map(str, arguments)])
        code = report.main()
        return (code, Page((root / 'report.html').read_text(encoding='utf-8')),
                capsys.readouterr().err)
    return run


def stands_alone(html):
    """Nothing is fetched: no address, no script, no style sheet; every source is in the page."""
    bare = re.sub('base64,[^"]*', '', html)
    assert not re.search(r'https?:|//[a-z]|@import|url\(|<script|<link|<iframe', bare)
    sources = re.findall(r'\bsrc(?:set)?="([^"]*)"', html)
    assert all(source.startswith('data:image/') for source in sources)
    assert all(href.startswith('#') for href in re.findall(r'\bhref="([^"]*)"', html))


# ---- the figures ---------------------------------------------------------------

def test_figures_of_a_case_counted_by_hand(root, run):
    code, shown, missing = run(root)
    assert code == 0, missing
    assert '60.0 % ' in shown.text and '70.0 % ' in shown.text and '+10.0 ' in shown.text
    assert ('Over the 10 test videos that both predict: 2 flipped to right, 1 to wrong; '
            'McNemar\u2019s exact test p = 1 ') in shown.text
    rows = shown.table('Accuracy in percent')
    assert [row[rows[0].index('top-1 %')] for row in rows[1:]] == ['60.0', '70.0']
    assert [row[rows[0].index('n')] for row in rows[1:]] == ['10', '10']
    assert shown.table('All 3 classes') == [
        ['class', 'n', 'points', 'frames %', 'LSTM 1x8 %', 'videos'],
        ['Diving', '2', '+50.0', '50.0', '100.0', '+1'],
        ['Archery', '4', '+25.0', '50.0', '75.0', '+1'],
        ['Bowling', '4', '\u221225.0', '75.0', '50.0', '\u22121']]
    assert shown.table('Before')[1:] == [
        ['Archery', 'Bowling', '4', '2', '1'], ['Diving', 'Archery', '2', '1', '0'],
        ['Bowling', 'Archery', '4', '1', '2']]
    assert shown.table('After')[1:] == [
        ['Bowling', 'Archery', '4', '1', '2'], ['Archery', 'Bowling', '4', '2', '1']]
    assert '2 videos flipped to right' in shown.text and '1 video flipped to wrong' in shown.text
    # The epoch of the lowest validation loss is the one whose weights are kept.
    assert 'epoch 2, whose weights are kept' in shown.text
    assert shown.table('LSTM 1x8: figures')[2] == ['2', '0.500', '1.000', '50.0', '25.0']


def test_position_is_not_drawn_where_steps_are_not_the_first_frames(root, run):
    write_predictions(root / 'mixed_testPredictions.hdf5', zip(NAMES, map(one_hot, SAID_B)),
                      CLASSES, 'GRU 1x8', 1)
    append_result(root, 'GRU 1x8', 1, 'video', 0, {'inference': 'segments:3', 'test_steps': 2},
                  n=10, top1=0.7, top5=None, top10=None, loss=1.0, validation_loss=0.5,
                  predictions='mixed_testPredictions.hdf5')
    code, shown, missing = run(root)
    assert code == 0, missing
    assert 'keep no order of frames: GRU 1x8.' in shown.text
    assert {row[0] for row in shown.table('By video, after')[1:]} == {'frames', 'LSTM 1x8'}
    assert 'what GRU 1x8 gains over frames' in shown.text  # by its line's validation loss


# ---- the page --------------------------------------------------------------------

def test_page_stands_alone_and_says_what_its_pictures_show(root, run):
    _, shown, _ = run(root)
    stands_alone((root / 'report.html').read_text(encoding='utf-8'))
    pictures = shown.all('img')
    assert len(pictures) == 2 and all(len(p['alt']) > 40 for p in pictures)
    assert 'frames: 6 of 10 videos on the diagonal' in pictures[0]['alt']
    charts = [svg for svg in shown.all('svg') if svg.get('class') == 'chart']
    assert len(charts) == 6 and all(svg['aria-label'] and svg['role'] == 'img' for svg in charts)
    assert all(th['scope'] in ('row', 'col') for th in shown.all('th'))
    marks = [attributes['id'] for _, attributes in shown.elements if 'id' in attributes]
    assert len(marks) == len(set(marks))
    assert {a['href'][1:] for a in shown.all('a')} <= set(marks)
    assert {label['for'] for label in shown.all('label')} <= set(marks)


def test_names_cannot_break_the_page(root, run):
    write_run(root, 'odd', '<b>"a" & b</b>', SAID_B, 0.7)
    code, shown, missing = run(root, '--runs', 'odd')
    assert code == 0, missing
    assert '<b>"a" & b</b>' in shown.text and not shown.all('b')


def test_frames_flipped_are_shown(root, run, small_set):
    clips = sorted((small_set / 'UCF-101').glob('*/*.avi'))
    for name in (NAMES[2], NAMES[6]):  # one flips to right, one to wrong
        folder = root / 'UCF-101' / name.split('_')[1]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[0], folder / f'{name}.avi')
    code, shown, missing = run(root)
    frames = [p for p in shown.all('img') if p['src'].startswith('data:image/jpeg')]
    assert len(frames) == 2 and NAMES[2] in frames[0]['alt'] and NAMES[6] in frames[1]['alt']
    assert code == 0 and 'example frame' in missing  # the third flipped clip is not there


# ---- what is missing -----------------------------------------------------------

def test_frames_alone_make_a_page(root, run):
    (root / 'RNN_testPredictions.hdf5').unlink()
    shutil.rmtree(root / 'RNN.training')
    code, shown, missing = run(root)
    assert code == 0
    assert missing == (
        f'{root}: no run of rnn.py yet; made by: python rnn.py --root {root}\n'
        f'no map of features: {root}/train1024.hdf5: not there; made by: python save_hdf5.py '
        f'--root {root}\n')
    assert 'no run of rnn.py yet' in shown.text
    assert 'Confusion matrices' in shown.text and 'Clips that flipped' not in shown.text


def test_results_or_a_log_alone_make_a_page(root, run):
    shutil.rmtree(root / 'ucfTrainTestlist')
    for path in root.glob('*.hdf5'):
        path.unlink()
    code, shown, missing = run(root)
    assert code == 0 and 'classInd.txt' in missing and 'testPredictions1024.hdf5' in missing
    assert 'Results' in shown.text and 'Loss curves' in shown.text
    (root / 'results.jsonl').unlink()
    code, shown, missing = run(root)
    assert 'results.jsonl' in missing and 'Loss curves' in shown.text


def test_nothing_at_all_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, 'report.py', '--root', str(tmp_path)],
                          cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'nothing to report' in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_log_that_is_missing_cut_or_odd_is_one_line(root, run):
    (root / 'frameTraining' / 'log').unlink()
    log = root / 'RNN.training' / 'log'
    code, shown, missing = run(root)
    assert code == 0 and 'Confusion matrices' in shown.text
    assert (f'no loss curve of frames: {root}/frameTraining/log: not there; made by: python '
            f'frameBasedTrain.py --root {root}\n') in missing
    log.write_text(log.read_text()[:70])
    code, _, missing = run(root)
    assert code == 3 and f'{log}: not readable' in missing and missing.count('\n') == 4
    log.write_text('[{"epoch": "one", "main/loss": NaN, "validation/main/loss": 2}, {}]')
    code, shown, missing = run(root)
    assert code == 0 and shown.table('LSTM 1x8: figures')[1][:3] == ['1', '-', '2.000']


def test_a_picture_that_fails_is_named_and_the_page_written(root, run, monkeypatch):
    monkeypatch.setattr(plotstyle, 'failure', lambda: 'OSError: no folder')
    code, shown, missing = run(root)
    assert code == 3 and missing.count('OSError: no folder') == 2 and 'Results' in shown.text


def test_run_asked_for_but_missing_or_broken_ends_with_3(root, run):
    (root / 'bad_testPredictions.hdf5').write_text('no HDF5')
    (root / 'RNN.training' / 'log').write_text('{"not": "a list"}')
    code, shown, missing = run(root, '--runs', 'RNN', 'bad', 'absent')
    assert code == 3
    for words in ('absent_testPredictions.hdf5: not there; made by: python rnn.py --name absent '
                  f'--root {root}',
                  'bad_testPredictions.hdf5: not a readable HDF5', 'RNN.training/log: not the'):
        assert words in missing and words in shown.text
    assert '70.0 %' in shown.text  # the rest is still told


def test_results_that_are_there_but_cannot_be_read_end_with_3(root, run):
    (root / 'results.jsonl').unlink()
    (root / 'results.jsonl').mkdir()
    code, shown, missing = run(root)
    assert code == 3 and 'results.jsonl: Is a directory' in missing


def test_without_names_runs_are_chosen_by_validation_not_by_test(root, run):
    for i in range(6):
        write_run(root, f'run{i}', f'GRU {i}x8', SAID_A, 0.6)
        write_log(root, f'run{i}.training', (2.0, 0.9 - i / 10))
    code, shown, missing = run(root)
    assert 'what GRU 5x8 gains over frames' in shown.text
    assert 'not shown: run0, RNN' in missing
    code, shown, _ = run(root, '--runs', 'RNN', 'run1')
    assert 'what LSTM 1x8 gains over frames' in shown.text and 'GRU 1x8 (n 10' in shown.text


def test_a_fold_is_held_against_the_frames_of_the_same_fold(root, run):
    for plain, name in (('frames', 'testPredictions1024_fold2of5.hdf5'),
                        ('RNN', 'deep_fold2of5_testPredictions.hdf5')):
        said, top1 = (SAID_B, 0.7) if plain == 'frames' else (SAID_A, 0.6)
        write_predictions(root / name, zip(NAMES, map(one_hot, said)), CLASSES, plain, 1)
        append_result(root, plain, 1, 'video', 0, {}, n=10, top1=top1, top5=None, top10=None,
                      loss=1.0, predictions=name, fold='2/5')
    write_log(root, 'frameTraining_fold2of5', (3.0, 2.5))
    write_log(root, 'deep_fold2of5.training')
    code, shown, missing = run(root, '--runs', 'deep_fold2of5', 'RNN')
    assert code == 0 and 'testPredictions' not in missing
    assert 'Split 1, fold 2/5, ' in shown.text
    # The head is of the frames of this fold, 70.0 %, not of those of no fold, 60.0 %.
    assert re.search(r'frames, top-1 by video.{0,12}70.0 %', shown.text)
    assert shown.table('frames: figures')[1][2] == '3.000'  # the curve is that of the fold
    # Where it has none, that is what is missed.
    (root / 'testPredictions1024_fold2of5.hdf5').unlink()
    missing = run(root, '--runs', 'deep_fold2of5')[2]
    assert ('testPredictions1024_fold2of5.hdf5: not there; made by: python save_hdf5.py --fold 2/5'
            in missing)


def test_another_split_than_asked_for_is_one_line(root, monkeypatch, capsys):
    for path in root.glob('*Training'), root.glob('*.training'), root.glob('*.hdf5'):
        for each in path:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    monkeypatch.setattr(sys, 'argv', ['report.py', '--root', str(root), '--split', '2'])
    with pytest.raises(UserError, match='nothing to report of split 2; .* of split 1: add'):
        report.main()
    # What cannot be read is named, not said to be not there.
    (root / 'results.jsonl').write_text('{"a": 1}\n')
    with pytest.raises(UserError, match='nothing to report: no result in results.jsonl'):
        report.main()
    assert 'results.jsonl:1: no usable' in capsys.readouterr().err
    assert not (root / 'report.html').exists()


def test_the_curves_of_another_split_are_no_report(root, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['report.py', '--root', str(root), '--split', '2'])
    with pytest.raises(UserError, match='nothing to report of split 2'):
        report.main()


def test_no_curve_is_missed_where_none_can_be(root, run):
    write_run(root, 'logistic', 'logistic regression', SAID_B, 0.7)
    path = root / 'results.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line['command'] = 'python fit.py --root x'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert ('no loss curve of logistic regression: it was made by python fit.py --root x, which '
            'tells no losses by epoch\n') in run(root)[2]
    lines[-1]['command'] = 'python rnn.py --name logistic'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert (f'no loss curve of logistic regression: {root}/logistic.training/log: not there; made '
            'by: python rnn.py --name logistic\n') in run(root)[2]
    lines[-1]['test_only'] = True
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert 'no loss curve' not in run(root)[2]


def test_what_order_adds_stands_at_the_head(root, run):
    lines = [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]
    lines[1]['settings'] = {'cell': 'lstm', 'stream': 'rgb', 'epochs': 9}
    (root / 'results.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    code, shown, missing = run(root)
    assert code == 0 and ('no run without order to tell what order adds; made by: python rnn.py '
                          f'--root {root} --cell mean --name mean\n') in missing
    write_predictions(root / 'mean_testPredictions.hdf5', zip(NAMES, map(one_hot, SAID_A)),
                      CLASSES, 'mean', 1)
    append_result(root, 'mean', 1, 'video', 0, {'cell': 'mean', 'stream': 'rgb', 'epochs': 2}, n=10,
                  top1=0.6, loss=1.0, validation_loss=9.0, predictions='mean_testPredictions.hdf5')
    code, shown, missing = run(root, '--runs', 'RNN')  # the other is shown without being named
    assert code == 0 and 'without order' not in missing
    assert 'RNN is held against mean, but that one was trained with epochs=2; with the' in missing
    assert 'points of LSTM 1x8 over it: what order adds +10.0' in shown.text
    assert ('LSTM 1x8 over mean, which sees no order. Over the 10 test videos that both predict: '
            '2 flipped to right, 1 to wrong') in shown.text


def test_runs_on_different_features_are_told(root, run):
    assert 'different features' not in run(root)[2]
    lines = [json.loads(line) for line in (root / 'results.jsonl').read_text().splitlines()]
    for told, said in ((('a', 'b'), True), (('a', 'a'), False), (('a', None), False)):
        (root / 'results.jsonl').write_text(''.join(
            json.dumps({**line, 'features': features}) + '\n'
            for line, features in zip(lines, told)))
        assert ('frames and RNN were made from different features' in run(root)[2]) == said


def test_which_frames_mattered_is_what_the_model_says_without_them(packed, run_rnn):
    run_rnn(packed, '--epochs', 1, '--inference', 'full', '--readout', 'mean')
    lists = read_lists(packed)
    of_run = read_run('RNN', packed / 'RNN_testPredictions.hdf5', lists, 1)
    args = argparse.Namespace(root=packed, split=1, examples=1)
    notes, faults, clip = [], [], lists.test[0]
    drops = report.drops_by(args, of_run, Names(), {}, notes, faults)(clip)
    model, _ = load_rnn(packed / 'RNN.model')
    with h5py.File(packed / 'test1024.hdf5') as f:
        rows = f[clip.name][()]
    named = of_run.method.said[clip.name]
    for start, end, drop in (drops[0], drops[5], drops[-1]):
        model.reset_state()
        with chainer.using_config('train', False):
            scores = model(np.concatenate([rows[:start], rows[end:]])[:, None]).array[:, 0]
        logs = np.mean(scores - np.logaddexp.reduce(scores, axis=1)[:, None], axis=0)
        without = np.exp(logs - np.logaddexp.reduce(logs))[named]
        assert drop == pytest.approx(of_run.probability[clip.name][named] - without, abs=1e-5)
    with h5py.File(packed / 'test1024.hdf5', 'r+') as f:
        smallSet.say(f, model_sha256='another')
    assert report.drops_by(args, of_run, Names(), {}, notes, faults) is None
    assert not notes and 'features of another network' in faults[0]


def test_runs_of_one_method_are_told_apart(root, run):
    write_run(root, 'again', 'LSTM 1x8', SAID_A, 0.6)
    _, shown, _ = run(root)
    assert 'LSTM 1x8 (RNN)' in shown.text and 'LSTM 1x8 (again)' in shown.text


def test_frames_of_another_variant_are_a_run_of_their_own(root, run):
    write_run(root, 'late', 'flow late fusion frames', SAID_A, 0.6)
    (root / 'late_testPredictions.hdf5').rename(root / 'testPredictions1024_flow_late.hdf5')
    _, shown, _ = run(root)
    assert 'flow late fusion frames (n 10' in shown.text
    code, _, missing = run(root, '--runs', 'frames_late')
    assert code == 3 and f'made by: python save_hdf5.py --fusion late --root {root}' in missing


@pytest.mark.skipif(CHROMIUM is None, reason='no chromium or chrome on this machine')
@pytest.mark.parametrize('width', [390, 1280])
def test_browser_shows_it_without_sideways_scrolling(root, run, width, tmp_path):
    run(root)
    # A window cannot be as narrow as a phone, a frame in it can. The copy in the frame may
    # run a script, which tells its width to the page around.
    html = (root / 'report.html').read_text(encoding='utf-8')
    html = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', '', html)
    (tmp_path / 'inner.html').write_text(html.replace(
        '</body>', '<script>onload = () => { const page = document.documentElement;'
        'const broken = [...document.images].filter(i => !i.naturalWidth).length;'
        'parent.postMessage(`${page.scrollWidth} ${page.clientWidth} ${broken}`, "*") }'
        '</script></body>'), encoding='utf-8')
    (tmp_path / 'outer.html').write_text(
        '<!DOCTYPE html><body><script>onmessage = e => document.body.dataset.found = e.data'
        f'</script><iframe src="inner.html" width="{width}" height="2000"></iframe>')
    done = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
         '--no-first-run', '--disable-background-networking', '--disable-component-update',
         '--disable-sync', '--hide-scrollbars', f'--user-data-dir={tmp_path / "profile"}',
         '--dump-dom', '--window-size=1400,2000', '--virtual-time-budget=5000',
         f'file://{tmp_path / "outer.html"}'], capture_output=True, text=True, timeout=120,
        env=dict(os.environ, HOME=str(tmp_path)))
    found = re.search(r'data-found="(\d+) (\d+) (\d+)"', done.stdout)
    assert found, done.stderr[-500:]
    needed, there, broken = map(int, found.groups())
    assert there == width and needed == there and broken == 0


def test_error_of_a_missing_folder_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['report.py', '--root', str(tmp_path / 'gone')])
    with pytest.raises(UserError, match='gone'):
        report.main()
