"""Drawn films: what is done when, in the pictures and in annotations of three kinds."""
from pathlib import Path

import imageio_ffmpeg
import numpy
import pytest

import demo
from engine.drawing.clips import FPS, is_whole
from engine.drawing.filmmarks import write_marks
from engine.drawing.films import ACTION, PAUSE, Act, film_recipe, frames, plan
from engine.drawing.shapes import CLASSES
from engine.errors import UserError
from engine.events.annotations import read_annotations


def test_a_plan_fills_the_film_with_actions_and_pauses():
    for person in range(1, 8):
        acts = plan(3, person, 30, 60)
        assert acts == plan(3, person, 30, 60) != plan(4, person, 30, 60)
        assert acts[0].start == 0 and 30 * FPS <= acts[-1].stop <= 60 * FPS
        assert all(a.stop == b.start for a, b in zip(acts, acts[1:]))
        assert [act.label is None for act in acts] == [i % 2 == 0 for i in range(len(acts))]
        seconds = [(act.stop - act.start) / FPS for act in acts]
        assert all(ACTION[0] - 1 / FPS <= s <= ACTION[1] for s in seconds[1::2])
        assert all(PAUSE[0] - 1 / FPS <= s <= PAUSE[1] for s in seconds[2:-1:2])
        # by turns: none a second time before each was there
        done = [act.label for act in acts if act.label]
        assert len(set(done[:len(CLASSES)])) == min(len(done), len(CLASSES))


def test_things_move_while_something_is_done_and_then_only():
    acts = [Act(None, 0, 12), Act('MoveRight', 12, 30), Act(None, 30, 42),
            Act('TurnClockwise', 42, 60)]
    for person in (1, 2, 3):
        film = numpy.array(list(frames(0, person, acts)), int)
        assert film.shape == (60, 240, 320, 3)
        moved = (abs(film[1:] - film[:-1]) > 60).any(axis=3).mean(axis=(1, 2))
        for act in acts:
            inside = moved[act.start:act.stop - 1]
            if act.label == 'MoveRight':
                assert inside.mean() > 3e-3
            elif act.label is None:
                assert inside.max() < 0.02  # the camera shakes a little


def test_marks_of_three_kinds_say_what_the_plan_says(tmp_path):
    films = [(Path(f'films/p{person}.avi'), f'p{person}', plan(0, person, 30, 60))
             for person in range(1, 7)]
    write_marks(tmp_path, films)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['boris.tsv', 'p3.eaf', 'p6.eaf',
                                                                'plain.csv']
    found = []
    for path in sorted(tmp_path.iterdir()):
        marks, wrong = read_annotations(path)
        assert not wrong
        found += [(Path(mark.film).stem, mark.subject, mark.label, mark.start, mark.stop)
                  for mark in marks]
    truth = [(person, person, act.label, act.start / FPS, act.stop / FPS)
             for _, person, acts in films for act in acts if act.label]
    assert len(found) == len(truth)
    for ours, theirs in zip(sorted(found), sorted(truth)):
        assert ours[:3] == theirs[:3]
        numpy.testing.assert_allclose(ours[3:], theirs[3:], atol=1e-3)


def test_films_are_drawn_once(tmp_path, capsys):
    flags = ['films', '--tiny', '--root', str(tmp_path), '--people', '2', '--new', '1',
             '--shortest', '3', '--longest', '4', '--workers', '1']

    def stage():
        args = demo.build_parser(True).parse_args(flags)
        args.stage(args)
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.avi')}
    first = stage()
    assert sorted(path.name for path in first) == ['other01.avi', 'person01.avi', 'person02.avi']
    for path in first:
        number = int(path.stem[-2:])
        person = number if path.stem.startswith('person') else demo.OTHERS + number
        assert is_whole(path, film_recipe(0, 3, 4))
        assert (imageio_ffmpeg.count_frames_and_secs(path)[0]
                == plan(0, person, 3, 4)[-1].stop)
    (tmp_path / 'new/other01.avi').write_bytes(b'half')
    second = stage()
    assert '2 films are there already' in capsys.readouterr().out
    assert [path.name for path in first if first[path] != second[path]] == ['other01.avi']
    flags[flags.index('--longest') + 1] = '2'
    with pytest.raises(UserError, match='at most --longest'):
        stage()
