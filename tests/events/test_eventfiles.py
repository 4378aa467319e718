"""Events in files, read back as their readers would."""
import csv
import json
import re
from collections import Counter

import pytest

from engine.errors import UserError
from engine.events import eventfiles
from engine.events.annotations import read_annotations
from engine.events.merging import Event
from engine.files import write_text
from predictSet import draw

CLASSES = ['jump', 'sit, "down"']
EVENTS = [Event('jump', 1.0004, 2.5, 0.8126), Event('sit, "down"', 2.5, 3724.0449, 0.5),
          Event('jump', 3725, 3726, 1.0)]


def read_csv(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.reader(f))


def test_a_table_of_events_is_an_annotation(tmp_path, capsys):
    film = eventfiles.Film('films/a, b.mp4', 4000.0, EVENTS)
    eventfiles.write_film(str(tmp_path / 'a'), film, {'video': film.path}, subtitles=True)
    rows = read_csv(tmp_path / 'a.events.csv')
    assert rows[:2] == [['film', 'class', 'start', 'stop', 'probability'],
                        ['films/a, b.mp4', 'jump', '1.000', '2.500', '0.813']]
    found, wrong = read_annotations(tmp_path / 'a.events.csv')
    assert not wrong
    assert [(mark.film, mark.label, mark.start, mark.stop) for mark in found] == [
        (film.path, event.label, round(event.start, 3), round(event.stop, 3))
        for event in EVENTS]
    assert '3 events, 3724.0 s of 4000.0' in capsys.readouterr().out
    eventfiles.write_film(str(tmp_path / 'b'), film._replace(events=[]), {})
    assert read_annotations(tmp_path / 'b.events.csv') == ([], [])
    assert {path.name for path in tmp_path.iterdir()} == {
        'a.events.csv', 'a.srt', 'a.predicted.json', 'b.events.csv', 'b.predicted.json'}


def test_what_people_did_is_not_written_over(tmp_path, monkeypatch):
    stem, film = str(tmp_path / 'a'), eventfiles.Film('a\udcff.mp4', 4000.0, EVENTS)
    srt, events = tmp_path / 'a.srt', tmp_path / 'a.events.csv'
    srt.write_text('1\n00:00:01,000 --> 00:00:02,000\nHello!\n')
    assert not eventfiles.write_film(stem, film, {})
    before = events.read_bytes()
    assert str(srt) in eventfiles.write_film(stem, film._replace(events=[]), {}, subtitles=True)
    assert events.read_bytes() == before and 'Hello' in srt.read_text()
    srt.unlink()
    for subtitles in (True, False, True):  # its own are written over
        assert not eventfiles.write_film(stem, film, {}, subtitles)

    def killed(path, text):
        write_text(path, text)
        if str(path).endswith('.events.csv'):
            raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(eventfiles, 'write_text', killed)
        eventfiles.write_film(stem, film._replace(events=EVENTS[:1]), {}, subtitles=True)
    assert not eventfiles.changed(stem, subtitles=True)
    events.write_bytes(before.replace(b'sit', b'lie'))
    assert str(events) in eventfiles.write_film(stem, film, {})
    assert b'lie' in events.read_bytes()
    events.unlink()
    events.symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'a.predicted.json').write_text('[1')
    assert str(events) in eventfiles.changed(stem)


def test_subtitles(tmp_path):
    assert eventfiles.subtitles_of(EVENTS) == (
        '1\n00:00:01,000 --> 00:00:02,500\njump 81 %\n\n'
        '2\n00:00:02,500 --> 01:02:04,045\nsit, "down" 50 %\n\n'
        '3\n01:02:05,000 --> 01:02:06,000\njump 100 %\n')


def test_budget(tmp_path):
    films = [eventfiles.Film('a.mp4', 4000.0, EVENTS), eventfiles.Film('b.mp4', 10.0, [])]
    eventfiles.write_budget(tmp_path / 'budget.csv', films, CLASSES)
    assert read_csv(tmp_path / 'budget.csv') == [
        ['film', 'class', 'events', 'seconds', 'share', 'first start', 'mean length'],
        ['a.mp4', 'jump', '2', '2.500', '0.0006', '1.000', '1.250'],
        ['a.mp4', 'sit, "down"', '1', '3721.545', '0.9304', '2.500', '3721.545'],
        ['b.mp4', 'jump', '0', '0.000', '0.0000', '', ''],
        ['b.mp4', 'sit, "down"', '0', '0.000', '0.0000', '', '']]


def test_a_boris_project(tmp_path):
    """Each behaviour of the observations is in the ethogram, states begin and end by turns."""
    paths = [draw(tmp_path / name, frames=5, rate=20, sound=sound)
             for name, sound in (('a.mp4', True), ('b.mp4', False))]
    (tmp_path / 'more').mkdir()
    paths.append(tmp_path / 'more/a.mp4')  # gone since; another of the same name
    eventfiles.write_boris(tmp_path / 'x.boris', [
        eventfiles.Film(str(paths[0]), 4000.0, EVENTS), eventfiles.Film(str(paths[1]), 9.0, []),
        eventfiles.Film(str(paths[2]), 9.0, EVENTS[:1])], CLASSES)
    project = json.loads((tmp_path / 'x.boris').read_text())
    behaviours = {entry['code']: entry['type'] for entry in project['behaviors_conf'].values()}
    assert behaviours == {'jump': 'State event', 'sit, "down"': 'State event'}
    assert list(project['observations']) == ['a', 'b', str(paths[2])]
    for path, observation in zip(paths, project['observations'].values()):
        assert observation['file']['1'] == [str(path)] and observation['type'] == 'MEDIA'
        assert all(list(observation['media_info'][field]) == [str(path)]
                   for field in ('length', 'fps', 'hasVideo', 'hasAudio'))
        assert observation['events'] == sorted(observation['events'], key=lambda e: e[0])
        assert all(times % 2 == 0 for times in
                   Counter(event[2] for event in observation['events']).values())
        assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d', observation['date'])
    first, second, _ = project['observations'].values()
    assert first['media_info']['fps'] == {str(paths[0]): 20.0}
    assert [info['media_info']['hasAudio'][str(path)]
            for info, path in zip((first, second), paths)] == [True, False]
    assert first['events'][:3] == [[1.0, '', 'jump', '', '0.813'], [2.5, '', 'jump', '', ''],
                                   [2.5, '', 'sit, "down"', '', '0.500']]
    assert second['events'] == []


def test_a_project_that_somebody_corrected_is_not_written_over(tmp_path):
    path = tmp_path / 'x.boris'
    eventfiles.check_boris(path)
    for events in (EVENTS, EVENTS[:1]):
        eventfiles.write_boris(path, [eventfiles.Film('a.mp4', 9.0, events)], CLASSES)
        eventfiles.check_boris(path)
    project = json.loads(path.read_text())
    for text in (path.read_text().replace('1.0,', '1.1,'), json.dumps(project), 'else', ''):
        path.write_text(text)
        with pytest.raises(UserError, match='changed since predict.py wrote it'):
            eventfiles.check_boris(path)
