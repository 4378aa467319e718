"""results.jsonl: a line a result, whatever was cut off before."""
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.reporting import resultsfile


def test_result_is_one_line_of_json(tmp_path):
    for unit in ('frame', 'video'):
        resultsfile.append_result(tmp_path, 'frames', 1, unit, 3, {'lr': 0.1}, n=5, top1=0.2)
    lines = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text().splitlines()]
    assert [line['unit'] for line in lines] == ['frame', 'video']
    assert {'method', 'split', 'n', 'seed', 'settings', 'command', 'commit'} <= lines[0].keys()
    with pytest.raises(ValueError):
        resultsfile.append_result(tmp_path, 'frames', 1, 'clip', 3, {})


def test_a_line_tells_of_the_lists_whatever_the_order_and_ends_of_their_lines(tmp_path):
    assert resultsfile.lists_told(tmp_path, 1) == {}
    folder = tmp_path / 'ucfTrainTestlist'
    folder.mkdir()

    def told(classes='1 A\n2 B\n', train='A/a.avi 1\nB/b.avi 2\n', test='A/c.avi\n', **more):
        for name, text in {'classInd': classes, 'trainlist01': train, 'testlist01': test,
                           **more}.items():
            (folder / f'{name}.txt').write_bytes(text.encode())
        return resultsfile.lists_told(tmp_path, 1)
    first = told()
    assert first.keys() == {'classes', 'lists'} and resultsfile.append_result(
        tmp_path, 'x', 1, 'video', 0, {}).items() >= first.items()
    assert told(train='B/b.avi 2\r\nA/a.avi 1\r\n\r\n', classes='\ufeff1 A\n2 B') == first
    assert told(classes='1 A\n2 C\n')['classes'] != first['classes']
    for more in ({'test': 'A/d.avi\n'}, {'train': 'A/a.avi 1\n'}, {'groups': 'A/a.avi\tg\n'}):
        other = told(**more)
        assert other['classes'] == first['classes'] and other['lists'] != first['lists']
    assert resultsfile.lists_told(tmp_path, 2) == {}


def test_a_result_is_there_once_however_often_its_stage_ends(tmp_path):
    def lines(top1, name='a_testPredictions.hdf5', **more):
        resultsfile.append_result(tmp_path, 'GRU', 1, 'video', 0, {'lr': 0.1}, predictions=name,
                                  n=2, top1=top1, **more)
        text = (tmp_path / 'results.jsonl').read_text()
        return [json.loads(line)['top1'] for line in text.splitlines()]
    assert lines(0.5, seconds=3) == [0.5] == lines(0.5, seconds=9.5)
    assert lines(0.5, name='b_testPredictions.hdf5') == [0.5, 0.5]
    assert lines(0.5, test_only=True) == [0.5, 0.5, 0.5]
    # What was overwritten in between is told again: the last line is what the file holds.
    assert lines(0.6) == [0.5, 0.5, 0.5, 0.6]
    assert lines(0.5) == [0.5, 0.5, 0.5, 0.6, 0.5] == lines(0.5)


def test_a_result_of_other_clips_of_the_file_does_not_have_the_first_told_again(tmp_path):
    for without in (None, 'other', None, 'other'):
        resultsfile.append_result(tmp_path, 'GRU', 1, 'video', 0, {'without': without}, n=2)
    assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 2
    # Unless another run has written over the file in between.
    for seed, without in ((1, 'other'), (0, None)):
        resultsfile.append_result(tmp_path, 'GRU', 1, 'video', seed, {'without': without}, n=2)
    assert len((tmp_path / 'results.jsonl').read_text().splitlines()) == 4


def test_stages_that_end_together_tell_a_result_once(tmp_path, monkeypatch):
    read, n = resultsfile.read_results, 6

    def reading(path):
        found = read(path)
        time.sleep(0.05)  # so that all the others come in between
        return found
    monkeypatch.setattr(resultsfile, 'read_results', reading)
    (tmp_path / 'results.jsonl').touch()
    with ThreadPoolExecutor(n) as pool:
        for of_one in [pool.submit(resultsfile.append_result, tmp_path, 'frames', 1, unit, 3, {},
                                   n=2) for unit in ('frame', 'video') for _ in range(n)]:
            of_one.result()
    found, faults = read(tmp_path / 'results.jsonl')
    assert sorted(line['unit'] for line in found) == ['frame', 'video'] and not faults
    assert [path.name for path in tmp_path.iterdir()] == ['results.jsonl']


def test_a_line_cut_off_does_not_swallow_the_next(tmp_path):
    path = tmp_path / 'results.jsonl'
    path.write_text('{"method": "cut o')
    for seed in (1, 2):
        resultsfile.append_result(tmp_path, 'frames', 1, 'video', seed, {})
    cut, *whole = path.read_text().splitlines()
    assert cut == '{"method": "cut o' and [json.loads(line)['seed'] for line in whole] == [1, 2]


def test_lines_of_a_file_tell_its_settings_whichever_clips_they_count():
    lines = [{'unit': unit, 'split': 1, 'predictions': 'x.hdf5', 'settings': settings}
             for unit, settings in (('video', {'lr': 1}), ('video', {'lr': 2, 'without': 'b'}),
                                    ('frame', {'lr': 3}))]
    path = Path('there/x.hdf5')
    assert resultsfile.line_of(lines, path, 1) is lines[0]
    assert resultsfile.line_of(lines, path, 1, 'b') is lines[1]
    assert resultsfile.line_of(lines, path, 1, 'c') == {} == resultsfile.line_of(lines, path, 2)
    assert resultsfile.settings_of(lines, path, 1) is lines[1]['settings']
    assert resultsfile.settings_of(lines[2:], path, 1) == {}
