"""makeSplit.py: folders, names and tables as people and programs leave them."""
import errno
import os
import re
from pathlib import Path

import numpy
import pytest
from PIL import Image

import helperFunctions as hf
from engine import variants
from engine.errors import UserError
from engine.files import files_under
from engine.video.decode import read_frames
from engine.video.ownvideos import MOST_BYTES
from smallSet import run_stage
from splitSides import groups, sides

PEOPLE = '([a-z]+)[0-9]'


def put_people(put, below=''):
    put(*(f'{below}{name}/{person}{i}.mp4' for name in ('jump', 'run')
          for person in ('anna', 'bob', 'carl') for i in (1, 2)))


# ------------------------------------------------------------------------- sides

@pytest.mark.parametrize('tops', [('train', 'test'), ('Training', 'Validation', 'Testing'),
                                  ('train_set', 'test_set')])
def test_sides_of_a_split_are_no_classes(split, put, tops):
    for top in tops:
        put(*(f'{top}/{name}/{top}{i}.mp4' for name in ('jump', 'run', 'wave') for i in (1, 2)))
    with pytest.raises(UserError, match=f'sides of a split, .*add --test-folder {tops[-1]}'):
        split()
    root, said = split('--test-folder', tops[-1], '--group', '(.+)')
    assert hf.read_lists(root).classes == ['jump', 'run', 'wave']
    side = sides(root)
    assert len(side) == 6 * len(tops)
    assert {name for name, of in side.items() if of == 'test'} == {
        f'{tops[-1]}_{name}_{tops[-1]}{i}' for name in ('jump', 'run', 'wave') for i in (1, 2)}


def test_groups_on_both_given_sides_are_said(split, put, capsys):
    put_people(put, 'train/')
    put(*(f'val/{name}/dora1.mp4' for name in ('jump', 'run')), 'val/run/anna9.mp4')
    root, said = split('--test-folder', 'val', '--group', PEOPLE)
    assert 'WARNING: 1 groups are on both sides, anna first' in said
    hf.read_lists(root)
    assert 'groups are on both lists' in capsys.readouterr().err


def test_people_below_classes_are_groups_and_the_other_way_is_offered(split, put):
    put(*(f'{name}/{person}/{i}.mp4' for name in ('jump', 'run')
          for person in ('anna', 'bob', 'carl') for i in (1, 2)))
    root, said = split()
    assert 'add --test-folder run' in said and set.union(*groups(root)) == {'anna', 'bob', 'carl'}
    with pytest.raises(UserError, match='nowhere: is none of jump, run'):
        split('--test-folder', 'nowhere', root='other')


def test_a_class_that_one_side_lacks(split, put):
    put_people(put, 'train/')
    put('test/jump/dora1.mp4', 'test/jump/dora2.mp4')
    with pytest.raises(UserError, match='class run has clips none below test'):
        split('--test-folder', 'test', '--group', PEOPLE)


# ------------------------------------------------------------------- what is there

def test_what_is_passed_over_is_named_by_its_kind(split, put):
    put_people(put)
    put('loose.mp4', 'notes.txt', 'jump/a.srt', 'jump/b.srt', 'run/c.xyz', 'run/README')
    _, said = split('--group', PEOPLE)
    assert '1 videos stand outside the class folders' in said and 'loose.mp4 first' in said
    assert 'passed over 5 files' in said and '2 .srt' in said and '1 .xyz' in said
    assert '1 without an ending' in said


@pytest.mark.parametrize('ending', '3gpp h264 mod dav lrv insv MTS'.split())
def test_cameras_endings(split, put, ending):
    put(*(f'{name}/{person}1.{ending}' for name in ('jump', 'run') for person in ('anna', 'bob')))
    assert len(sides(split('--group', PEOPLE)[0])) == 4


def test_classes_of_numbers_are_in_their_order(split, put):
    put(*(f'{name}/{name}{person}1.mp4' for name in ('10', '9', '100') for person in 'ab'))
    root, said = split('--group', '([ab])')
    assert hf.read_lists(root).classes == ['9', '10', '100']
    assert said.index('\n9 ') < said.index('\n10 ') < said.index('\n100 ')


def test_copies_are_all_named(split, put):
    put_people(put)
    for word in ('one', 'two'):
        put(f'jump/anna_{word}7.mp4', f'run/bob_{word}7.mp4', data=word.encode())
    with pytest.raises(UserError, match='2 videos stand in two groups or classes'):
        split('--group', r'(anna|bob|carl)')


def test_linked_folders_are_followed_once(split, put, tmp_path):
    put_people(put)
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'dora1.mp4').write_bytes(b'dora')
    (tmp_path / 'clips/jump/dora').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'clips/jump/again').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'clips/run/round').symlink_to(tmp_path / 'clips')
    root, said = split('--group', r'([a-z]+)[0-9]\.')
    assert len(sides(root)) == 13


def test_a_root_among_the_clips_is_refused(split, put, tmp_path):
    put_people(put)
    for root in ('clips', 'clips/own', 'clips/jump/own'):
        with pytest.raises(UserError, match='stands in the folder of the clips'):
            split('--group', PEOPLE, root=root)
    assert not (tmp_path / 'clips/own').exists()


# ------------------------------------------------------------------------- names

def test_long_names_leave_room_for_what_is_made_of_them(split, put):
    long = 'x' * 240
    put(*(f'{name}/{person}1{long}.mp4' for name in ('jump', 'run')
          for person in ('anna', 'bob', 'carl')))
    put(*(f'{name}/{person}1{"ä" * 119}.mp4' for name in ('jump', 'run')
          for person in ('dora', 'emil')))
    root, said = split('--group', r'(anna|bob|carl|dora|emil)')
    assert 'names are too long' in said
    names = sides(root)
    assert len(names) == 10
    assert all(len(os.fsencode(name)) == MOST_BYTES for name in names)
    lists = hf.read_lists(root)
    assert all(clip.path.exists() for clip in lists.train + lists.test)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be',
                                      'cp1252'])
def test_tables_of_other_programs(split, put, tmp_path, encoding):
    put(*(f'{name}/Zoë_{i}.mp4' for name in ('jump', 'run') for i in range(4)))
    (tmp_path / 'table').write_bytes('\r\n'.join(
        f'C:\\films\\{name}\\Zoë_{i}.mp4;Persón {i % 2}' for name in ('jump', 'run')
        for i in range(4)).encode(encoding))
    train, test = groups(split('--groups', tmp_path / 'table')[0])
    assert train | test == {'Persón_0', 'Persón_1'}


def test_the_pattern_looks_below_the_class(split, put):
    put(*(f'jump{n}/{person}{i}.mp4' for n in (1, 2) for person in ('anna', 'bob')
          for i in (1, 2)))
    train, test = groups(split('--group', r'([a-z]+)\d')[0])
    assert train | test == {'anna', 'bob'}


# ---------------------------------------------------------------------- pictures

def test_folders_of_pictures_are_clips(split, put, tmp_path, capsys):
    random = numpy.random.RandomState(0)
    shown = {}
    for name in ('jump', 'run'):
        for person in ('anna', 'bob'):
            folder = tmp_path / 'clips' / name / f'{person}1'
            folder.mkdir(parents=True)
            for i in range(1, 12):  # 10 comes behind 9
                ending = 'png' if person == 'anna' else ('tif', 'tiff')[i % 2]
                shown[name, person, i] = random.randint(0, 256, (32, 48, 3), numpy.uint8)
                Image.fromarray(shown[name, person, i]).save(folder / f'frame{i}.{ending}')
    with pytest.raises(UserError, match='a class without a video'):
        split('--group', PEOPLE)
    Image.new('RGB', (8, 8)).save(tmp_path / 'clips/run/bob1/cover.jpg')
    root, said = split('--group', PEOPLE, '--pictures', 10, root='a:b #%d')
    assert 'run/bob1: 1 pictures that are no .tif are passed over' in said
    lists = hf.read_lists(root)
    for clip in lists.train + lists.test:
        frames = read_frames(clip.path, range(11), size=(48, 32))
        person = 'anna' if 'anna' in clip.name else 'bob'
        for i in range(11):
            numpy.testing.assert_array_equal(
                frames[i][..., ::-1], shown[clip.class_name, person, i + 1])
    before = {path: path.stat().st_mtime_ns for path in files_under(root / variants.CLIPS)}
    split('--group', PEOPLE, '--pictures', 10, root='a:b #%d')  # again: nothing is made anew
    assert before == {path: path.stat().st_mtime_ns for path in files_under(root / variants.CLIPS)}
    (tmp_path / 'clips/run/bob1/frame5.tiff').write_bytes(b'no picture')
    os.mkfifo(tmp_path / 'clips/jump/anna1/frame12.png')
    with pytest.raises(UserError, match='2 folders of pictures make no video'):
        split('--group', PEOPLE, '--pictures', 10)
    said = capsys.readouterr().out
    assert 'frame12.png: no file but a pipe' in said
    assert re.search('run/bob1: .* of 11 pictures could be read', said)
    assert not list((root.parent / 'root').glob('.*'))


# -------------------------------------------------------- file systems without links

def test_without_links_clips_are_copied_and_that_is_said(split, put, monkeypatch):
    put_people(put)

    def none(self, target, *_):
        raise OSError(errno.EPERM, 'Operation not permitted', target, None, str(self))
    monkeypatch.setattr(Path, 'symlink_to', none)
    root, said = split('--group', PEOPLE)
    assert 'takes no links, so the clips are copied, 0 MB' in said
    clips = files_under(root / variants.CLIPS)
    assert len(clips) == 12 and not any(path.is_symlink() for path in clips)
    os.unlink(put() / 'jump/anna2.mp4')
    assert len(sides(split('--group', PEOPLE)[0])) == 11
    (root / variants.CLIPS / 'jump/mine.mp4').write_bytes(b'not made here')
    with pytest.raises(UserError, match='not made of links'):
        split('--group', PEOPLE)


def test_a_full_disk_leaves_nothing_behind(split, put, monkeypatch):
    put_people(put)

    def full(self, target, *_):
        raise OSError(errno.ENOSPC, 'No space left on device', str(self))
    monkeypatch.setattr(Path, 'symlink_to', full)
    with pytest.raises(UserError, match='No space left on device; check space'):
        split('--group', PEOPLE, root='full')
    assert not list((put().parent / 'full').glob('.*'))


def test_predict_names_what_it_cannot_read_and_does_the_rest(small_set, tmp_path):
    """Pipes, links to nothing, empty files, names too long for what is written of them."""
    clip = hf.read_lists(small_set).test[0].path
    folder = tmp_path / 'films'
    folder.mkdir()
    (folder / 'b.avi').write_bytes(clip.read_bytes())
    (folder / ('a' * 240 + '.avi')).write_bytes(clip.read_bytes())
    (folder / 'c.mp4').symlink_to('/nowhere/c.mp4')
    (folder / 'd.mp4').touch()
    os.mkfifo(folder / 'e.mp4')
    done = run_stage('predict.py', folder, '--root', small_set, '--out', tmp_path / 'seen')
    assert done.returncode == 3, done.stderr
    said = done.stdout + done.stderr
    for reason in ('its name is too long', 'c.mp4: No such file', 'd.mp4: an empty file',
                   'e.mp4: no file but a pipe'):
        assert reason in said
    assert (tmp_path / 'seen/b.predicted.json').exists()


# ------------------------------------------------------------------- official lists

def test_official_lists_and_clips_that_are_not_there(split, put, tmp_path):
    """A class without a folder is cut away, a clip without a file told of; what fails leaves no
    root behind."""
    names = [f'{name}/v_{name}_g0{g}_c01.avi' for name in 'AB' for g in (1, 2, 3)]
    lists = tmp_path / 'lists'
    lists.mkdir()
    (lists / 'classInd.txt').write_text('1 A\n2 B\n3 C\n')
    for side, listed in (('test', [*names[::3], 'C/v_C_g01_c01.avi']),
                         ('train', [name for name in names if name not in names[::3]])):
        (lists / f'{side}list01.txt').write_text('\n'.join(listed))
    put('UCF-101/A/a.avi')
    with pytest.raises(UserError, match='holds no folder of a class'):
        split('--lists', lists)
    assert not (tmp_path / 'root').exists()
    put(*names[:5])
    split.code = 3
    root, said = split('--lists', lists)
    assert f'1 of 6 listed clips are not in {put()} ({put() / names[5]} first): bring' in said
    assert hf.read_lists(root).classes == ['A', 'B']
    put(names[5])
    split.code = None
    assert 'are not in' not in split('--lists', lists)[1]
    (root / variants.FRAME_MODEL).touch()  # has learned from these lists, and may go on by them
    split('--lists', lists)
    before = (root / variants.LISTS / 'testlist01.txt').read_text()
    (lists / 'testlist01.txt').write_text(names[0])
    with pytest.raises(UserError, match='holds other lists, .*rm -r .*VGG_1024.model'):
        split('--lists', lists)
    assert (root / variants.LISTS / 'testlist01.txt').read_text() == before


def test_a_folder_of_data_sets_names_the_one_that_was_meant(split, put):
    put('UCF-101/A/a.avi', 'UCF-101/B/b.avi', 'ucfTrainTestlist/classInd.txt')
    meant = f'if the classes are the folders in {put()}/UCF-101, give --clips {put()}/UCF-101'
    with pytest.raises(UserError, match=f'ucfTrainTestlist: a class without a video; {meant}'):
        split()
    put('UCF-101/c.avi', 'notes/a.txt')
    os.rename(put() / 'UCF-101/A', put() / 'A')
    with pytest.raises(UserError, match='notes: a class without.*; move the folder elsewhere') as e:
        os.rename(put() / 'ucfTrainTestlist', put().parent / 'lists')
        split()
    assert 'remove' not in str(e.value)
