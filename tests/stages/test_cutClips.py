"""cutClips.py: clips to the frame out of annotated films, and the root that they make."""
import csv
import os
import shutil

import av
import numpy
import pytest

import checkData
import cutClips
import helperFunctions as hf
from engine import variants
from engine.errors import UserError
from engine.events import cutting
from engine.events.annotations import read_annotations
from engine.events.films import Film
from engine.events.planning import Stretch, draw, pieces, without_overlaps
from engine.files import files_under
from engine.video.decode import Frames
from numberedFilm import make_film, number_of
from smallSet import run_stage, save_random_model

MARKS = '''film,start,stop,class,subject
C:\\films\\a.mp4,0.04,0.4,walk,x
a,0.4,0.8,sit,x
b.mkv,0.033,0.5,walk,y
b.mkv,0.501,1.001,sit,y
c.avi,0.1,0.65,sit,z
c.avi,1.0,1.3,walk,z
'''
# c.avi is of MPEG-4, its pixels of odd sides; b.mkv varies in rate from its frame 15 on
VARYING = 'N*33.3667+if(gt(N\\,15)\\,(N-15)*20\\,0)'


@pytest.fixture(scope='session')
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp('films')
    make_film(folder / 'a.mp4', 60)
    make_film(folder / 'b.mkv', 40, stamps=VARYING, first=100)
    make_film(folder / 'c.avi', 60, first=200, codec=('-vf', 'scale=161:33', '-c:v', 'mpeg4',
                                                      '-q:v', '2'))
    return folder


@pytest.fixture(scope='session')
def finished(films, tmp_path_factory):
    """A root with the clips of MARKS; only to be read."""
    folder = tmp_path_factory.mktemp('finished')
    (folder / 'marks.csv').write_text(MARKS)
    done = run_stage('cutClips.py', films, '--annotations', folder / 'marks.csv', '--root',
                     folder / 'own')
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / 'own'


@pytest.fixture
def before(finished, tmp_path):
    """tmp_path/own with the clips of MARKS in place."""
    shutil.copytree(finished, tmp_path / 'own')


@pytest.fixture
def cut(films, tmp_path, monkeypatch, capsys):
    """Runs the script in this process; returns (its exit code, what it printed)."""
    def cut(text, *flags, name='marks.csv'):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr('sys.argv', ['cutClips.py', str(films), '--annotations',
                                         str(tmp_path / name), '--root', str(tmp_path / 'own'),
                                         *map(str, flags)])
        code = cutClips.main()
        return code, capsys.readouterr().out.replace(f'{tmp_path}/', '').replace(f'{films}/', '')
    return cut


def table(root):
    with open(root / 'clips.csv', newline='') as f:
        return list(csv.DictReader(f))


def numbers(path, size=(160, 32)):
    return [number_of(frame) for batch in Frames(path, size) for frame in batch]


# ------------------------------------------------------------------------ the frames

def test_clips_hold_the_frames_between_their_times(finished):
    held = {row['clip']: numbers(finished / 'UCF-101' / row['clip']) for row in table(finished)}
    # by hand: 25 frames a second; 30000/1001 of them, from the 16th on 53.4 ms apart
    assert held == {
        'walk/a_0000040_0000400.mkv': [*range(1, 10)],
        'sit/a_0000400_0000800.mkv': [*range(10, 20)],
        'walk/b_0000033_0000500.mkv': [*range(101, 115)],
        'sit/b_0000501_0001001.mkv': [*range(116, 125)],
        'sit/c_0000100_0000650.mkv': [*range(203, 217)],
        'walk/c_0001000_0001300.mkv': [*range(225, 233)]}
    assert [(row['first'], row['frames']) for row in table(finished)
            if row['film'].endswith('b.mkv')] == [('16', '9'), ('1', '14')]


def test_a_clip_is_its_film_pixel_by_pixel(finished):
    for row in table(finished)[1::2]:
        film, clip = (numpy.concatenate(list(Frames(path, 32))) for path in (
            row['film'], finished / 'UCF-101' / row['clip']))
        first, count = int(row['first']), int(row['frames'])
        assert (clip == film[first:first + count]).all()


def test_another_decoder_sees_the_same_frames_at_these_times(finished):
    def seen(path, start, stop):
        with av.open(str(path)) as container:
            return [number_of(frame.to_ndarray(format='bgr24'))
                    for frame in container.decode(video=0)
                    if start - 6e-4 <= frame.time < stop - 6e-4]
    for row in table(finished):
        assert seen(finished / 'UCF-101' / row['clip'], 0, 9) == seen(
            row['film'], float(row['start']), float(row['stop']))


@pytest.mark.parametrize('form', ['yuvj420p', 'yuv444p', 'rgb24', 'gray', 'yuv410p'])
def test_pixels_of_every_kind_stay(tmp_path, form):
    codec = {'rgb24': ('-c:v', 'png'), 'yuvj420p': ('-c:v', 'mjpeg', '-q:v', '2')}.get(
        form, ('-c:v', 'ffv1'))
    film = make_film(tmp_path / 'film.mov' if form == 'rgb24' else tmp_path / 'film.mkv', 6,
                     codec=(*codec, '-pix_fmt', form))
    target = tmp_path / 'clips' / 'clip.mkv'
    (right, wrong), = cutting.cut(film, [i / 25 for i in range(6)],
                                  [cutting.Cut(target, 2, 3)], tmp_path / 'part')
    assert [cut.target for cut in right] == [target] and not wrong
    film, clip = (numpy.concatenate(list(Frames(path, 32))) for path in (film, target))
    assert (clip == film[2:5]).all()


def test_more_clips_than_are_cut_at_once(cut, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, 'AT_ONCE', 2)
    assert cut(MARKS)[0] is None
    assert len(files_under(tmp_path / 'own' / variants.CLIPS)) == 6
    assert not list((tmp_path / 'own').glob('.*.part'))


# -------------------------------------------------------------------------- the root

def test_the_root_is_one_that_stages_take(before, cut, tmp_path, monkeypatch):
    code, said = cut(MARKS, '--groups', 'subject')
    assert code is None and 'sit                           3      1.4      3   1 (33%)' in said
    root = tmp_path / 'own'
    lists = hf.read_lists(root)
    assert lists.classes == ['sit', 'walk']
    sides = [{clip.group for clip in side} for side in (lists.train, lists.test)]
    assert sides[0] | sides[1] == {'x', 'y', 'z'} and not sides[0] & sides[1]
    monkeypatch.setattr('sys.argv', ['checkData.py', '--root', str(root)])
    assert not checkData.main()
    # and what was cut is a table of annotations again
    intervals, problems = read_annotations(root / 'clips.csv')
    assert not problems and {interval[1:5] for interval in intervals} == {
        (0.04, 0.4, 'walk', 'x'), (0.4, 0.8, 'sit', 'x'), (0.033, 0.5, 'walk', 'y'),
        (0.501, 1.001, 'sit', 'y'), (0.1, 0.65, 'sit', 'z'), (1.0, 1.3, 'walk', 'z')}


@pytest.mark.skipif(not os.environ.get('LONG'), reason='LONG=1: runs four stages')
def test_stages_run_on_it(before, tmp_path):
    save_random_model(tmp_path / 'own')
    for script, *flags in (('saveFeatures_1024.py', 1, '--parts', 1), ('save_hdf5.py',),
                           ('normalizeData.py',), ('singleFrameAccuracy.py',)):
        done = run_stage(script, *flags, '--root', tmp_path / 'own')
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_command_cuts_only_what_is_new(before, cut, tmp_path):
    place = tmp_path / 'own/UCF-101/walk/a_0000040_0000400.mkv'
    before = place.stat().st_mtime_ns
    changed = MARKS.replace('1.0,1.3,walk', '1.0,1.4,walk')
    assert '5 clips are in place, 1 to be cut' in cut(changed)[1]
    assert place.stat().st_mtime_ns == before
    names = {path.name for path in files_under(tmp_path / 'own' / variants.CLIPS)}
    assert 'c_0001000_0001400.mkv' in names and 'c_0001000_0001300.mkv' not in names
    place.unlink()
    assert '5 clips are in place, 1 to be cut' in cut(changed)[1]


def test_a_run_that_was_killed_goes_on_and_trusts_no_clip_in_the_making(cut, tmp_path,
                                                                        monkeypatch):
    real, calls = cutting.run, []

    def killed(*words, **options):
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words, **options)
    with monkeypatch.context() as patch:
        patch.setattr(cutting, 'run', killed)
        with pytest.raises(KeyboardInterrupt):
            cut(MARKS)
    root = tmp_path / 'own'
    assert not (root / variants.LISTS).exists() and not list(root.glob('.*.part'))
    # as if it had been killed between putting a clip in place and writing it down
    (root / 'UCF-101/sit/b_0000501_0001001.mkv').write_bytes(b'of another run')
    code, said = cut(MARKS)
    assert code is None and '2 clips are in place, 4 to be cut' in said
    assert numbers(root / 'UCF-101/sit/b_0000501_0001001.mkv') == [*range(116, 125)]


def test_a_film_that_was_replaced_is_cut_anew(before, cut, films):
    os.utime(films / 'a.mp4', ns=(1, 1))
    assert '4 clips are in place, 2 to be cut' in cut(MARKS)[1]


def test_lists_that_networks_have_learned_from_stay(before, cut, tmp_path):
    (tmp_path / 'own' / variants.FRAME_MODEL).touch()
    assert cut(MARKS)[0] is None
    with pytest.raises(UserError, match='holds other lists'):
        cut(MARKS + 'a,1,2,walk,x\n')
    assert len(table(tmp_path / 'own')) == 6


def test_a_folder_of_other_clips_is_left_alone(cut, tmp_path):
    other = tmp_path / 'own/UCF-101/walk/mine.mkv'
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(UserError, match='mine.mkv: already there'):
        cut(MARKS)


# ------------------------------------------------------------------ what is left out

@pytest.mark.parametrize('row,says', [
    ('a,1,1,walk,x', 'not after its start'),
    ('a,2,1,walk,x', 'not after its start'),
    ('z.mp4,1,2,walk,x', 'the film z.mp4 is not among those given; left out, in all 1 rows'),
    ('a,2,9,walk,x', 'walk from 2.000 to 9.000 s, but a.mp4 goes from 0 to 2.400 s'),
    ('a,-1,0.02,walk,x', 'goes from 0'),
    ('a,1.001,1.002,walk,x', 'holds no frame'),
    ('a,1,2,jump,x', 'class jump: only film a shows it')])
def test_each_row_that_cannot_be_taken_gets_a_line(before, cut, tmp_path, row, says):
    code, said = cut(MARKS + row + '\n')
    assert code == 3 and len(table(tmp_path / 'own')) == 6
    line = next(line for line in said.splitlines() if says in line)
    assert 'class jump' in line or line.startswith('marks.csv:8: ')
    assert 'see the lines above (1)' in said
    assert cut(MARKS + row + '\n')[0] == 3


def test_marks_may_end_a_little_behind_the_last_frame(before, cut, tmp_path):
    assert cut(MARKS + 'a,2.2,2.45,walk,x\n')[0] is None
    assert numbers(tmp_path / 'own/UCF-101/walk/a_0002200_0002400.mkv') == [*range(55, 60)]


@pytest.mark.parametrize('row,spans', [
    # of another class: neither gets what both claim
    ('a,0.3,1.3,jump,x', {'walk': (0.04, 0.3), 'sit': None, 'jump': (0.8, 1.3)}),
    # of the same class: the later one gives way
    ('a,0.3,1.3,walk,x', {'walk': (0.04, 0.4), 'sit': None}),
    ('a,0.79,1.2,jump,x', {'walk': (0.04, 0.4), 'sit': (0.4, 0.79), 'jump': (0.8, 1.2)})])
def test_what_two_marks_share(before, cut, tmp_path, row, spans):
    code, said = cut(MARKS + 'b.mkv,1.2,1.5,jump,y\n' + row + '\n')
    assert code == 3 and said.count(' overlaps ') >= 2
    found = {}
    for clip in table(tmp_path / 'own'):
        if clip['film'].endswith('a.mp4'):
            found.setdefault(clip['class'], (float(clip['start']), float(clip['stop'])))
    assert found == {name: span for name, span in spans.items() if span}


def test_classes_and_subjects_may_be_chosen(before, cut, tmp_path):
    assert cut(MARKS + 'c.avi,1.5,1.9,jump,z\n', '--classes', 'walk', 'sit')[0] is None
    assert {row['class'] for row in table(tmp_path / 'own')} == {'sit', 'walk'}
    assert cut(MARKS, '--subjects', 'x', 'y')[0] is None
    assert {row['subject'] for row in table(tmp_path / 'own')} == {'x', 'y'}


@pytest.mark.parametrize('text,says', [
    (MARKS.replace('sit', 'walk'), 'fewer than two classes'),
    (MARKS + 'a,1,2,Walk,x\n', '"Walk" is called "walk" in .*marks.csv:2'),
    (MARKS + 'a,1,2,a b,x\na,2,2.1,a_b,x\n', '"a_b" is called "a b" in .*marks.csv:8'),
    ('film,start,stop,class\na,1,1,x\n', 'no annotation could be read')])
def test_annotations_that_make_no_root(cut, tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        cut(text)
    assert not (tmp_path / 'own' / variants.LISTS).exists()


def test_a_film_of_another_length_than_boris_says(cut, tmp_path):
    head = ('Observation id,Source,Media duration (s),Subject,Behavior,Behavior type,Start (s),'
            'Stop (s)\n')
    rows = [f'{film},player #1:{film},{lasts},{film[0]},{behavior},STATE,{start},{start + 0.4}\n'
            for film, lasts in (('a.mp4', 2.4), ('b.mkv', 1.8), ('c.avi', 99))
            for behavior, start in (('walk', 0.1), ('sit', 0.6))]
    code, said = cut(head + ''.join(rows))
    assert code == 3 and said.count('annotated in a film of 99.0 s, but c.avi has 2.4 s') == 2


# ------------------------------------------------------------------------- other

def test_other_keeps_away_from_marks(before, cut, tmp_path):
    assert cut(MARKS, '--other', '--margin', 0.2)[0] is None
    rows = table(tmp_path / 'own')
    others = [row for row in rows if row['class'] == 'other']
    lengths = {round(float(row['stop']) - float(row['start']), 3) for row in rows
               if row['class'] != 'other'}
    assert len(others) == 3 and len({row['group'] for row in others}) > 1
    for row in others:
        start, stop = float(row['start']), float(row['stop'])
        assert round(stop - start, 3) in lengths
        for mark in rows:
            if mark is not row and mark['film'] == row['film']:
                away = 0.2 * (mark['class'] != 'other') - 1e-6
                assert float(mark['start']) - stop >= away or start - float(mark['stop']) >= away
    first = [row['clip'] for row in others]
    assert '9 clips are in place, 0 to be cut' in cut(MARKS, '--other', '--margin', 0.2)[1]
    assert [row['clip'] for row in table(tmp_path / 'own') if row['class'] == 'other'] == first


def test_how_many_others(before, cut, tmp_path):
    cut(MARKS, '--other', '--margin', 0.2, '--other-times', 0.67)
    assert [row['class'] for row in table(tmp_path / 'own')].count('other') == 2


def test_all_that_is_not_marked(before, cut, tmp_path):
    """Of a.mp4, marked from 0.04 to 0.8 s of 2.4, what is left is the last 1.5 s: as the longest
    clip has 0.55 s, three pieces; what is left before it is too short."""
    cut(MARKS, '--other', '--margin', 0.1, '--other-times', 'all')
    rows = [row for row in table(tmp_path / 'own') if row['class'] == 'other']
    assert [(row['start'], row['stop']) for row in rows if row['group'] == 'a'] == [
        ('0.900', '1.400'), ('1.400', '1.900'), ('1.900', '2.400')]
    # c.avi: between its marks from 0.75 to 0.9 s, half of its shortest clip, and behind them;
    # 1.3 + 0.1 is a little more than 1.4, and no piece comes nearer than the margin
    assert [row['start'] for row in rows if row['group'] == 'c'] == ['0.750', '1.401', '1.900']


def test_pieces_keep_the_margin_and_share_no_moment():
    assert pieces([('a', 0.0004, 1.9), ('a', 5, 15.2), ('b', 20, 20.9)], 1, 5) == [
        ('a', 0.001, 1.9), ('a', 5.0, 8.4), ('a', 8.4, 11.8), ('a', 11.8, 15.2)]


@pytest.mark.parametrize('seed', range(20))
def test_what_marks_share_against_a_count_of_seconds(seed):
    random = numpy.random.RandomState(seed)
    marks = [Stretch(Film('a', 'a'), start, start + length, 'ab'[label], '', str(i))
             for i, (start, length, label) in enumerate(zip(
                 random.randint(0, 60, 12), random.randint(1, 12, 12), random.randint(0, 2, 12)))]
    ordered = sorted(marks, key=lambda mark: (mark.start, mark.stop))
    expected = []
    for i, mark in enumerate(ordered):
        free = [moment for moment in range(mark.start, mark.stop) if not any(
            other.start <= moment < other.stop for j, other in enumerate(ordered)
            if j != i and (other.label != mark.label or j < i))]
        runs = [[moment] for moment in free]
        for one, two in zip(runs[::-1][1:], runs[::-1]):
            if one[-1] + 1 == two[0]:
                one += two
        longest = max(runs, key=len, default=[])
        if 2 * len(longest) >= mark.stop - mark.start:
            expected.append(mark._replace(start=longest[0], stop=longest[-1] + 1))
    assert without_overlaps(marks)[0] == expected


def test_other_by_subject_takes_whose_mark_is_nearest(before, cut, tmp_path):
    marks = MARKS.replace('b.mkv,0.501,1.001,sit,y', 'b.mkv,0.501,1.001,sit,w').replace(',z', ',')
    _, said = cut(marks + 'a,2.3,2.4,sit,y\na,2.2,2.3,walk,w\n', '--other', '--groups', 'subject',
                  '--margin', 0.1)
    assert said.count('has no subject, which --groups subject asks for') == 2
    others = [row for row in table(tmp_path / 'own') if row['class'] == 'other']
    assert others and all(row['subject'] for row in others)


def test_other_trusts_no_film_of_a_file_in_which_something_is_missing(before, cut):
    _, said = cut(MARKS + 'a,x,2,walk,x\n', '--other')
    assert 'rows are missing, so nothing in its films is taken for other' in said
    assert 'room for 0 of 3' in said


def test_other_trusts_no_film_with_a_mark_that_was_refused(before, cut, tmp_path):
    """What it marks is there, but nobody knows where."""
    for row, code in (('a,2,9,walk,x', 3), ('a,2,1,walk,x', 3), ('a,1,1,walk,x', 3)):
        assert cut(MARKS + row + '\n', '--other', '--margin', 0.2)[0] == code
        drawn = {row['group'] for row in table(tmp_path / 'own') if row['class'] == 'other'}
        assert ('a' in drawn) == (row == 'a,1,1,walk,x'), row  # that marks nothing anywhere


def test_other_wants_all_annotations(before, cut, tmp_path):
    (tmp_path / 'bad.csv').write_text('film,start,stop,class\n,1,2,walk\n')
    for other in ('none.csv', 'bad.csv'):
        with pytest.raises(UserError, match=f'{other}.*which films it marks cannot be read'):
            cut(MARKS, '--annotations', tmp_path / 'marks.csv', tmp_path / other, '--other')


def test_a_row_that_cannot_be_read_counts_for_its_film_in_all_files(before, cut, tmp_path):
    (tmp_path / 'more.csv').write_text('film,start,stop,class\nx/a.mp4,?,2,walk\n')
    _, said = cut(MARKS, '--annotations', tmp_path / 'marks.csv', tmp_path / 'more.csv', '--other',
                  '--margin', 0.2)
    assert 'nothing is drawn from 1 films of which not every mark could be taken, a.mp4' in said
    assert 'a' not in {row['group'] for row in table(tmp_path / 'own') if row['class'] == 'other'}


def test_other_is_of_the_subjects_asked_for(before, cut, tmp_path):
    cut(MARKS, '--other', '--margin', 0.2, '--subjects', 'x', 'y', '--groups', 'subject')
    assert {row['subject'] for row in table(tmp_path / 'own')} == {'x', 'y'}
    marks = MARKS + 'c.avi,2,2.1,jump,X\n'
    with pytest.raises(UserError, match='"X" is called "x"'):
        cut(marks, '--other', '--groups', 'subject', '--classes', 'walk', 'sit')
    assert cut(marks, '--groups', 'subject', '--classes', 'walk', 'sit')[0] is None


def test_other_is_called_as_classes_are(before, cut, tmp_path):
    assert cut(MARKS, '--other', 'none of these', '--margin', 0.2)[0] is None
    assert 'none_of_these' in {row['class'] for row in table(tmp_path / 'own')}
    with pytest.raises(UserError, match='a class has this name'):
        cut(MARKS.replace('sit', 'sit down'), '--other', 'sit_down')


@pytest.mark.parametrize('flags,says', [
    (('--classes', 'walk', 'sti'), '--classes sti: no mark is of this; there are sit, walk'),
    (('--subjects', 'x', 'Y'), '--subjects Y: no mark is of this; there are x, y, z'),
    (('--tiers', 'doing'), '--tiers doing: in none of the annotations')])
def test_what_is_asked_for_and_not_there(cut, flags, says):
    with pytest.raises(UserError, match=says):
        cut(MARKS, *flags)


def test_accents_may_be_written_either_way(before, cut, tmp_path):
    marks = MARKS.replace('sit', 'ge\u0301ant')
    assert cut(marks, '--classes', 'walk', 'g\u00e9ant')[0] is None
    assert 'g\u00e9ant' in {row['class'] for row in table(tmp_path / 'own')}


def test_stretches_are_drawn_where_there_is_room():
    random = numpy.random.RandomState(0)
    drawn = draw([('a', 0.0, 10.0), ('b', 5.0, 6.0)], [2.0, 0.5], 6, random)
    assert len(drawn) > 3 and {round(stop - start, 3) for _, start, stop in drawn} == {2.0, 0.5}
    for film, start, stop in drawn:
        assert (0 if film == 'a' else 5) <= start and stop <= (10 if film == 'a' else 6)
    ordered = sorted(drawn)
    for (film, _, stop), (other, start, _) in zip(ordered, ordered[1:]):
        assert film != other or start >= stop


def test_many_marks_of_one_moment_are_no_endless_work():
    film = Film('a', 'a')
    marks = [Stretch(film, k % 3, 9, 'A', '', f'row {k}') for k in range(30000)]
    kept, problems = without_overlaps(marks)
    assert kept == [marks[0]] and len(problems) == len(marks) - 1
