"""makeSplit.py: lists by group for own videos, HMDB-51's lists, and the refusal of what leaks."""
import importlib
import json
import os
import re
import sys
from collections import Counter

import numpy
import pytest

import checkData
import helperFunctions as hf
from engine import variants
from engine.errors import UserError
from engine.files import files_under
from engine.video.groups import choose_test_groups
from predictSet import draw
from smallSet import run
from splitSides import groups, sides


# ------------------------------------------------------------- what a group is

def test_pattern_over_all_classes(split, put):
    put(*(f'{name}/{name}{i}_person{i % 5}.mp4' for name in ('Run', 'Jump') for i in range(20)))
    root, said = split('--group', r'(person\d)')
    train, test = groups(root)
    assert train | test == {f'person{i}' for i in range(5)} and not train & test
    # 4 of each class's 20 clips to a person; 0.3 is nearest to one person or two
    assert len(test) in (1, 2)
    assert f'Run                          20      5   {4 * len(test)} ({20 * len(test)}%)' in said
    assert 'WARNING' not in said
    lists = hf.read_lists(root)
    assert lists.classes == ['Jump', 'Run'] and all(clip.path.exists() for clip in lists.train)


@pytest.mark.parametrize('text', [
    'clip,group\nA/a.mp4,x\nA/b.mp4,y\nB/c.mp4,x\nB/d.mp4,y\n',
    'a\tx\nb.mp4\ty\r\n./B/c\tx\n\nd\ty', 'a;x\nb;y\nc;x\nd;y\n',
    '\ufeff"a","x"\nb,y\nc,x\nd, y\n'])
def test_table(split, put, tmp_path, text):
    put('A/a.mp4', 'A/b.mp4', 'B/c.mp4', 'B/d.mp4')
    (tmp_path / 'table').write_text(text, encoding='utf-8')
    root, _ = split('--groups', tmp_path / 'table')
    side = sides(root)
    assert side['a'] == side['c'] != side['b'] == side['d']


@pytest.mark.parametrize('text, says', [
    ('a,x\nb,y\nc,x\n', 'no group for 1 of 4 clips, B/d.mp4 first'),
    ('a,x\nb,y\nc,x\nd,y\na,y\n', 'table:5: a is in group x and in group y'),
    ('a,x\nb\nc,x\nd,y\n', 'table:2: expected a clip and its group, found "b"'),
    ('a,x\nb,x\nc,x\nd,y\n', 'class A: all of its 2 clips are of one group, x'),
    ('nobody\n', 'table:1: expected a clip and its group'), ('', 'no group for 4 of 4')])
def test_tables_that_are_refused(split, put, tmp_path, text, says):
    put('A/a.mp4', 'A/b.mp4', 'B/c.mp4', 'B/d.mp4')
    (tmp_path / 'table').write_text(text)
    with pytest.raises(UserError, match='(?s)' + says.replace('(', r'\(')):
        split('--groups', tmp_path / 'table')
    assert not (tmp_path / 'root').exists()


def test_a_table_that_ties_classes_into_a_knot(split, put, tmp_path):
    """A = {x, y}, B = {y, z}, C = {z, x}: whoever is tested, one class is on one side."""
    put('A/1.mp4', 'A/2.mp4', 'B/3.mp4', 'B/4.mp4', 'C/5.mp4', 'C/6.mp4')
    (tmp_path / 'table').write_text('1,x\n2,y\n3,y\n4,z\n5,z\n6,x\n')
    with pytest.raises(UserError, match='no division by groups'):
        split('--groups', tmp_path / 'table')


def test_the_same_name_in_two_classes_must_be_told_apart(split, put, tmp_path):
    put('A/1.mp4', 'A/2.mp4', 'B/1.mp4', 'B/2.mp4')
    (tmp_path / 'table').write_text('1,x\n2,y\n')
    with pytest.raises(UserError, match='table:1: 1 is the name of 2 clips; write A/1.mp4'):
        split('--groups', tmp_path / 'table')


def test_usual_habits(split, put):
    put(*(f'{name}/v_{name}_g0{g}_c01.avi' for name in 'AB' for g in (1, 2, 3)))
    root, said = split()
    train, test = groups(root)
    assert '_gNN' in said and train | test == {'g01', 'g02', 'g03'}


def test_sub_folders(split, put):
    put(*(f'{name}/day {day}/{i}.mov' for name in 'AB' for day in (1, 2, 3) for i in (1, 2)))
    root, said = split(root='r')
    assert 'sub-folders' in said
    train, test = groups(root)
    assert train | test == {'day_1', 'day_2', 'day_3'} and not train & test
    # twelve files called 1.mov and 2.mov
    assert len(sides(root)) == 12 and 'A_day_1_1' in sides(root)


def test_nothing_tells_the_group(split, put):
    put(*(f'{name}/{name}{i}.mkv' for name in 'AB' for i in range(10)))
    root, said = split('--test-share', 0.2)
    assert 'WARNING' in said and 'near-duplicates leak' in said
    assert Counter(sides(root).values()) == {'train': 16, 'test': 4}
    _, said = split('--group', '(.+)', '--test-share', 0.2, root='meant')
    assert 'WARNING' not in said


@pytest.mark.parametrize('flags, says', [
    (['--group', r'g(\d)'], 'tells no group of 1 of 4 clips, B/other.mp4 first'),
    ([], '_gNN in the name tells no group of 1 of 4')])
def test_some_clips_do_not_fit_the_pattern(split, put, flags, says):
    put('A/x_g1_c1.mp4', 'A/x_g2_c1.mp4', 'B/y_g1_c1.mp4', 'B/other.mp4')
    with pytest.raises(UserError, match=says):
        split(*flags)


# ------------------------------------------------------------------ the division

def test_shares_and_disjoint_test_sets():
    """As in UCF-101: 101 classes, 25 groups of 4 to 7 clips."""
    random = numpy.random.RandomState(0)
    members = {f'g{g:02d}': Counter({f'class{c}': int(random.randint(4, 8)) for c in range(101)})
               for g in range(25)}
    totals = sum(members.values(), Counter())
    tested = choose_test_groups(members, 0.3, 3, seed=0)
    assert not tested[0] & tested[1] and not tested[0] & tested[2] and not tested[1] & tested[2]
    for test in tested:
        share = [sum(members[g][c] for g in test) / totals[c] for c in totals]
        assert 0.2 < min(share) and max(share) < 0.4 and abs(numpy.mean(share) - 0.3) < 0.03
    assert tested == choose_test_groups(members, 0.3, 3, seed=0)
    assert tested[:1] == choose_test_groups(members, 0.3, 1, seed=0)
    assert tested != choose_test_groups(members, 0.3, 3, seed=1)


def test_two_groups_a_class_are_enough_and_used_again():
    """Of two groups one is tested, whatever the share; in three splits one of them twice."""
    members = {'x': Counter(A=1, B=9), 'y': Counter(A=1, B=1)}
    for share in (0.05, 0.3, 0.95):
        tested = choose_test_groups(members, share, 3, seed=0)
        assert all(len(test) == 1 for test in tested) and set.union(*tested) == {'x', 'y'}


def test_stratified_where_groups_belong_to_one_class():
    members = {f'{name}{i}': Counter({name: 1}) for name, n in (('A', 10), ('B', 100), ('C', 4))
               for i in range(n)}
    test, = choose_test_groups(members, 0.3, 1, seed=5)
    assert Counter(group[0] for group in test) == {'A': 3, 'B': 30, 'C': 1}


@pytest.mark.parametrize('share', [0, 1, -0.1, 'nan'])
def test_impossible_shares(split, put, share, capsys):
    put(*(f'{name}/{name}{i}.mkv' for name in 'AB' for i in range(3)))
    with pytest.raises(SystemExit):
        split('--group', '(.+)', '--test-share', share)
    assert 'argument --test-share: ' in capsys.readouterr().err


# ------------------------------------------------------------- what is refused

def test_copies_in_two_groups(split, put):
    put(*(f'{name}/v_{name}_g0{g}_c01.mp4' for name in 'AB' for g in (1, 2, 3)))
    put('A/v_A_g01_c02.mp4', 'A/v_A_g01_c03.mp4', data=b'the same')  # in one group: harmless
    split()
    put('A/v_A_g02_c02.mp4', data=b'the same')
    with pytest.raises(UserError, match='two groups or classes.*v_A_g0._c0..mp4 and .*same bytes'):
        split(root='other')
    os.unlink(put() / 'A/v_A_g02_c02.mp4')
    put('B/v_B_g01_c02.mp4', data=b'the same')
    with pytest.raises(UserError, match='1 videos stand in two groups or classes'):
        split(root='other')


def test_names_are_keys(split, put):
    put('A/a.mp4', 'A/b.mp4', 'B/a.mp4', 'B/c.mp4')
    root, said = split('--group', '(.+)')
    assert set(sides(root)) == {'A_a', 'b', 'B_a', 'c'} and '2 clips have a name' in said
    put('A/b.mkv')
    root, said = split('--group', '(.+)', root='other')
    assert set(sides(root)) == {'A_a', 'A_b_mp4', 'A_b_mkv', 'B_a', 'c'}
    put('A/b .mkv', 'A/b_.mkv')
    with pytest.raises(UserError, match='A/b .mkv and A/b_.mkv would have one name, A_b__mkv'):
        split('--group', '(.+)', root='third')


@pytest.mark.parametrize('names, says', [
    (['A/a.mp4'], 'holds 1 class folders'),
    (['A/a.mp4', 'A/b.mp4', 'B/notes.txt'], 'B: a class without a video'),
    (['A/a.mp4', 'A/b.mp4', 'a/c.mp4'], 'a: taken for the same class as .*A'),
    (['A/a.mp4', 'A/b.mp4', 'B' * 252 + '/c.mp4'], 'B: has 252 bytes.*rename the folder'),
    (['A/a.mp4', 'B/b.mp4'], 'class A: all of its 1 clips are of one group')])
def test_folders_that_are_refused(split, put, names, says):
    put(*names)
    with pytest.raises(UserError, match=says):
        split('--group', '(.+)')


def test_empty_broken_and_missing(split, put, tmp_path, capsys):
    """Each is named and left out, the rest goes on, and the exit code tells."""
    with pytest.raises(UserError, match='no folder of clips'):
        split()
    put('A/a.mp4', 'A/d.mp4', 'B/b.mp4', 'B/e.mp4')
    put('B/c.mp4', data=b'')
    (tmp_path / 'clips/B/f.mp4').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'clips/B/g.mp4')
    split.code = 3
    root, said = split('--group', '(.+)')
    assert set(sides(root)) == set('adbe')
    for line in ('c.mp4: an empty file', 'f.mp4: No such file or directory, a link to nowhere',
                 'g.mp4: no file but a pipe', '3 videos or folders were left out'):
        assert line in said
    for name in 'be':
        os.unlink(tmp_path / f'clips/B/{name}.mp4')
    with pytest.raises(UserError, match='B: a class without a video that can be read, .*c.mp4'):
        split('--group', '(.+)')


def test_a_folder_that_cannot_be_read(split, put, monkeypatch):
    """os.scandir stands in for rights, which a privileged user of the tests would not feel."""
    put('A/a.mp4', 'A/b.mp4', 'B/c.mp4', 'B/d.mp4', 'B/deep/e.mp4')
    (put() / 'B/f.mp4').symlink_to('f.mp4')
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith('deep'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)
    monkeypatch.setattr(os, 'scandir', guarded)
    split.code = 3
    root, said = split('--group', '([a-e])[.]')
    assert set(sides(root)) == set('abcd')
    assert 'B/deep: Permission denied' in said and 'B/f.mp4: Too many levels' in said


def test_a_root_with_other_lists_is_left_alone(split, put):
    put(*(f'{name}/{name}{i}_.mkv' for name in 'AB' for i in range(10)))
    root, _ = split('--group', '(.+)')
    before = {path: path.read_bytes() for path in (root / variants.LISTS).iterdir()}
    split('--group', '(.+)')  # the same again
    split('--group', '(.+)', '--splits', 2)  # one more, the first as it was
    (root / 'VGG_1024.model').touch()
    (root / 'results.jsonl').touch()
    for made in 'VGG_1024.model', 'results.jsonl':  # figures of both would be averaged
        with pytest.raises(UserError, match=f'other lists.*another --root.*rm -r .*{made}'):
            split('--group', '(.+)', '--splits', 2, '--seed', 1)
        assert before == {path: path.read_bytes() for path in before}
        os.unlink(root / made)
    (root / 'VGG.model').touch()  # knows nothing of the lists
    _, said = split('--group', '(.+)', '--seed', 1)
    assert 'replaces the lists' in said and not (root / variants.LISTS / 'testlist02.txt').exists()
    os.unlink(put() / 'A/A3_.mkv')  # one that was damaged, say
    assert 'A3_' not in sides(split('--group', '(.+)')[0])
    assert len(files_under(root / variants.CLIPS)) == 19


def test_odd_names(split, put):
    names = ['Brush Hair/a clip (1) [x]#%20.mp4', 'Brush Hair/b\n2 7.mkv', 'Brush Hair/.hidden.mp4',
             'Über/日本.webm', "Über/it's; $(c).MOV", 'Über/d.e.f.avi']
    put(*names, 'Über/' + os.fsdecode(b'\xff.mp4'), 'Über/' + os.fsdecode(b'\xff.txt'),
        'Über/' + os.fsdecode(b'a\xe8.mp4'), 'Über/' + os.fsdecode(b'a\xe9.mp4'))
    root, _ = split('--group', '(.+)')
    lists = hf.read_lists(root)
    assert lists.classes == ['Brush_Hair', 'Über']
    clips = {clip.name: clip.path for clip in lists.train + lists.test}
    odd = sorted(name for name in clips if name.startswith('Über_a?_mp4_'))
    assert set(clips) - set(odd) == {'a_clip_(1)_[x]#%20', 'b_2_7', '日本', "it's;_$(c)", 'd.e.f',
                                     '?'} and len(odd) == 2
    assert clips['b_2_7'].read_bytes() == names[1].encode()  # each link is to its own file
    assert len(set(path.resolve() for path in clips.values())) == 8


def test_flags_that_do_not_go_together(split, put, tmp_path):
    put('A/a.mp4')
    with pytest.raises(UserError, match='--test-share is for new lists'):
        split('--lists', tmp_path, '--test-share', 0.5)
    with pytest.raises(UserError, match='--splits says how many'):
        split('--split', 3)
    with pytest.raises(SystemExit):
        split('--group', 'no parentheses')
    with pytest.raises(SystemExit):
        split('--group', '(')


# --------------------------------------------------------- groups in later stages

def lists_with(root, **files):
    for name, text in files.items():
        (root / variants.LISTS).mkdir(exist_ok=True)
        (root / variants.LISTS / f'{name}.txt').write_text(text)
    return root


def test_groups_file(tmp_path, capsys):
    root = lists_with(tmp_path, classInd='1 A\n', testlist01='A/d.mp4\n', groups=(
        'A/a.mp4\tthe red house\r\nA/b.mp4\tx\nA/c_g01_c01.mp4\tx\nA/d.mp4\ty\nA/e.mp4\tz\n'),
        trainlist01='A/a.mp4 1\nA/b.mp4 1\nA/c_g01_c01.mp4 1\n')
    lists = hf.read_lists(root)
    assert [clip.group for clip in lists.train] == ['the red house', 'x', 'x']
    # what is held out to validate follows the file, too
    for seed in range(5):
        training, held = hf.hold_out_groups(lists.train, seed=seed)
        assert not {c.group for c in training} & {c.group for c in held}
    lists_with(root, testlist01='A/e.mp4\nA/f.mp4\n')
    with pytest.raises(UserError, match='testlist01.txt:2: .*groups.txt names no group of f'):
        hf.read_lists(root)
    lists_with(root, testlist01='A/d.mp4\n', groups='A/a.mp4\ty\nA/b.mp4\tx\n'
               'A/c_g01_c01.mp4\tx\nA/d.mp4\ty\n')
    with pytest.raises(UserError, match='1 groups are on both lists of split 1, A/y first'):
        hf.read_lists(root)
    assert checkData.leaks(hf.read_lists(root, leaks=True)) == ([], ['A/y'])
    groups_file = root / variants.LISTS / variants.GROUPS
    groups_file.write_text(variants.MAY_LEAK + '\r\n' + groups_file.read_text())
    assert len(hf.read_lists(root).train) == 3
    assert 'warning' in capsys.readouterr().err
    for text, says in (('A/a.mp4 y\n', 'groups.txt:1: expected'),
                       ('A/a.mp4\ty\nB/a.mkv\tz\n', 'groups.txt:2: is there twice')):
        groups_file.write_text(text)
        with pytest.raises(UserError, match=says):
            hf.read_lists(root)


# ----------------------------------------------------------------------- HMDB-51

def hmdb_name(film, name, number):
    return f'{film}_{name}_u_nm_np1_ba_goo_{number}.avi'


@pytest.fixture
def hmdb(put, tmp_path):
    """Two classes, four films with two clips each, three splits; clip 1 of film 4 is unused."""
    folder = tmp_path / 'testTrainMulti_7030_splits'
    folder.mkdir()
    for name in ('brush_hair', 'shoot_ball'):
        clips = [(film, number) for film in range(1, 5) for number in (0, 1)]
        put(*(f'{name}/{hmdb_name(f"April_0{film}", name, number)}' for film, number in clips))
        for split in (1, 2, 3):
            (folder / f'{name}_test_split{split}.txt').write_text(''.join(
                f'{hmdb_name(f"April_0{film}", name, number)} '
                f'{0 if (film, number) == (4, 1) else 2 if film == split else 1} \n'
                for film, number in clips))
    (folder / 'wave_test_split1.txt').write_text('of another class 1\n')
    return folder


def test_hmdb(split, hmdb):
    root, said = split('--lists', hmdb)
    assert 'WARNING' not in said and 'split 2: 10 clips to train, 4 to test' in said
    for number in (1, 2, 3):
        lists = hf.read_lists(root, number)
        assert lists.classes == ['brush_hair', 'shoot_ball']
        assert {clip.group for clip in lists.test} == {f'April_0{number}'}
        assert len(lists.train) == 10 and len(lists.test) == 4
        assert all(clip.path.exists() for clip in lists.train + lists.test)
    assert len(files_under(root / variants.CLIPS)) == 14  # the unused ones are left out


def test_hmdb_films_without_lists(split, hmdb):
    root, said = split()
    assert 'the film before the class' in said
    train, test = groups(root)
    assert train | test == {f'April_0{i}' for i in range(1, 5)} and not train & test


def test_hmdb_lists_that_leak_are_official(split, hmdb, capsys):
    path = hmdb / 'brush_hair_test_split2.txt'
    path.write_text(path.read_text().replace('0.avi 2', '0.avi 1'))
    root, said = split('--lists', hmdb)
    assert '1 films are on both sides of split 2, brush_hair/April_02 first' in said
    hf.read_lists(root, 2)
    assert '1 groups are on both lists of split 2' in capsys.readouterr().err
    hf.read_lists(root, 1)
    assert capsys.readouterr().err == ''


def test_hmdb_lists_and_clips_that_do_not_fit(split, hmdb, put):
    os.unlink(put() / 'brush_hair' / hmdb_name('April_01', 'brush_hair', 0))
    split.code = 3  # as with the lists of UCF-101
    _, said = split('--lists', hmdb)
    gone = hmdb_name('April_01', 'brush_hair', 0)
    assert re.search(rf'1 of 14 listed clips are not in .*/clips \(brush_hair/{re.escape(gone)} '
                     'first', said)
    path = hmdb / 'brush_hair_test_split2.txt'
    path.write_text('clip.avi 3\n')
    with pytest.raises(UserError, match='split2.txt:1: expected'):
        split('--lists', hmdb, root='other')
    path.unlink()
    with pytest.raises(UserError, match='brush_hair_test_split2.txt: no clips'):
        split('--lists', hmdb, root='other')


# ------------------------------------------------------------ through the stages

# What a clip is called, how it is made, its size and its rate.
CLIPS = [('0.MOV', '-c:v libx264 -c:a aac', '96x64', 60), ('1.mkv', '-c:v mpeg4', '48x96', 30),
         ('2.webm', '-c:v libvpx -deadline realtime', '130x70', 15),
         ('3 $a_b$.avi', '-c:v libx264 -bf 2 -c:a libmp3lame', '96x64', 30),
         ('0.mpg', '-c:v mpeg2video -bf 2', '96x64', 25), ('1.flv', '-c:v flv1 -an', '96x64', 10),
         ('2 \u52d5.MTS', '-c:v libx264 -bf 3 -f mpegts', '400x32', 50),
         ('3.gif', '-an -pix_fmt pal8', '64x64', 10),
         ('0.3gpp', '-c:v mpeg4 -f 3gp -an', '32x200', 15),
         ('1:%d#.wmv', '-c:v wmv2', '96x64', 24), (b'2\xe9.mp4', '-c:v libx264', '97x63', 25),
         ('3.h264', '-c:v libx264 -an', '96x64', 25)]


def test_every_stage_runs_on_own_videos(tmp_path, monkeypatch, capsys):
    """Three classes, each clip of another kind, size and rate, and odd names, as one root."""
    for number, (name, words, size, rate) in enumerate(CLIPS):
        path = tmp_path / 'clips' / ('Brush Hair', 'Run', 'wave')[number // 4] / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(f'file:{path}', '-pix_fmt', 'yuv444p' if size[1] == '7' else 'yuv420p',
             *words.split(), frames=8, size=size, rate=rate)
    root = tmp_path / 'root'

    def ok(script, *flags):
        monkeypatch.setattr(sys, 'argv', [script, '--root', str(root), *map(str, flags)])
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors='backslashreplace')  # as stage.run does
        code = importlib.import_module(script).main()
        said = capsys.readouterr()
        assert not code, said
        return said.out
    ok('makeSplit', '--clips', tmp_path / 'clips', '--group', '^([0-3])')
    assert 'all is well' in ok('checkData')
    pretrain(root)
    ok('frameBasedTrain', '--tiny', '--features', 16)
    done = run('./saveFeatures.sh', '--local', '--root', root, '--parts', 1)
    assert done.returncode == 0, done
    for script in ('save_hdf5', 'normalizeData', 'singleFrameAccuracy'):
        ok(script)
    ok('rnn', '--tiny')
    ok('confusion')
    table = ok('results', '--interval', 'groups')
    assert 'LSTM 1x16 video' in table and not (root / 'results.jsonl').read_text().count('NaN')
    lists = hf.read_lists(root)
    seen = [json.loads(line) for line in ok('predict', '--json', '--out', root / 'seen',
                                            tmp_path / 'clips').splitlines()]
    assert len(lists.train + lists.test) == len(seen) == len(CLIPS)
    assert {found['frames_seen'] for found in seen} == {8} and not any(
        {'short', 'damaged', 'error'} & set(found) for found in seen)
    for clip in lists.train + lists.test:
        assert len(numpy.load(variants.output_path(root, variants.FEATURES, clip))) == 8
        source = clip.path.resolve()
        assert source.parent.name.replace(' ', '_') == clip.class_name
        assert clip.group == source.name[0]
    assert len([path for path in root.glob('seen/*/*') if path.suffix == '.mp4']) == len(CLIPS)
    assert not [path for path in root.rglob('.*') if path.suffix == '.part']


def pretrain(root):
    """A VGG.model of random weights, as small as can be."""
    from VGGNet import VGGNet
    from engine.weights.modelfile import save_model
    model = VGGNet((8, 8, 8, 8, 8), 32, 3, 32)
    save_model(root / variants.VGG_MODEL, model, {'kind': 'vgg', 'shape': model.shape})
