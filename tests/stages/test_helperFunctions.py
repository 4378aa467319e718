"""Lists, groups and scores against hand-made cases and, where there, the official lists."""
import signal

import numpy
import pytest

import helperFunctions as hf
from engine import files, stage, variants
from engine.reporting import predictionfile
from engine.errors import UserError
from smallSet import run_stage


def write_lists(root, classes='1 A\r\n2 B\r\n', train='A/v_A_g02_c01.avi 1\r\n',
                test='A/v_A_g01_c01.avi\r\n'):
    folder = root / 'ucfTrainTestlist'
    folder.mkdir()
    for name, text in (('classInd', classes), ('trainlist01', train), ('testlist01', test)):
        (folder / f'{name}.txt').write_bytes(text.encode())
    return root


def test_crlf_blank_lines_and_spaces_are_taken(tmp_path):
    lists = hf.read_lists(write_lists(
        tmp_path, '1 A\r\n\r\n 2 B \n', 'A/v_A_g02_c01.avi 1\r\n\r\n B/my clip.mp4  2 \n'))
    assert lists.classes == ['A', 'B']
    assert [(c.name, c.label, c.group) for c in lists.train] == [
        ('v_A_g02_c01', 0, 'g02'), ('my clip', 1, 'my clip')]
    assert lists.test[0].path == tmp_path / 'UCF-101' / 'A' / 'v_A_g01_c01.avi'


def test_handstand_pushups_is_one_class_however_spelled(tmp_path):
    lists = hf.read_lists(write_lists(
        tmp_path, '1 HandstandPushups\n', 'HandstandPushups/v_HandStandPushups_g02_c01.avi 1\n',
        'HandStandPushups/v_HandStandPushups_g01_c01.avi\n'))
    assert {c.class_name for c in lists.train + lists.test} == {'HandstandPushups'}
    assert lists.test[0].path.parent.name == 'HandStandPushups'  # the folder as it is spelled


@pytest.mark.parametrize('bad, says', [
    (dict(train='C/v_C_g02_c01.avi 1\n'), 'trainlist01.txt:1: class "C"'),
    (dict(train='A/v_A_g02_c01.avi 2\n'), 'trainlist01.txt:1: label 2, but A is number 1'),
    (dict(train='A/v_A_g02_c01.avi 1\n' * 2), 'trainlist01.txt:2: v_A_g02_c01 is there twice'),
    (dict(train='nonsense\n'), 'trainlist01.txt:1: expected'),
    (dict(train='\r\n'), 'trainlist01.txt: names no clip'),
    (dict(test='A/v_A_g02_c01.avi\n'), '1 clips are on both lists'),
    (dict(test='A/v_A_g02_c07.avi\n'), '1 groups are on both lists of split 1, A/g02 first'),
    (dict(classes='1 A\n1 B\n'), 'classInd.txt:2'),
    (dict(classes='1 A\n3 B\n'), 'without a gap'),
    (dict(classes='A\n'), 'classInd.txt:1: expected "NUMBER CLASS"'),
    (dict(classes='1 ..\n2 A\n'), "classInd.txt:1: '..' begins with a dot"),
    (dict(classes='1 /etc\n2 A\n'), "classInd.txt:1: '/etc' is a path"),
    (dict(train='A/../../secret.avi 1\n'), "trainlist01.txt:1: '../../secret' begins with a dot"),
    (dict(train='A/b/../../c.avi 1\n'), "trainlist01.txt:1: 'b/../../c' is a path"),
    (dict(train='A//etc/c.avi 1\n'), "trainlist01.txt:1: '/etc/c' is a path"),
    (dict(train='/A/c.avi 1\n'), 'trainlist01.txt:1: expected'),
    (dict(train='../A/c.avi 1\n'), 'trainlist01.txt:1: class ".."'),
    (dict(test='A/...avi\n'), "testlist01.txt:1: '..' begins with a dot"),
    (dict(test='A/.about.avi\n'), "testlist01.txt:1: '.about' begins with a dot"),
    (dict(test='A/a\tb.avi\n'), "testlist01.txt:1: 'a\\tb' holds a control character"),
    (dict(test='A/a\0b.avi\n'), "testlist01.txt:1: 'a\\x00b' holds a control character"),
    (dict(test=f'A/{"x" * 251}.avi\n'), 'has 251 bytes'),
])
def test_bad_lists_name_file_and_line(tmp_path, bad, says):
    with pytest.raises(UserError) as error:
        hf.read_lists(write_lists(tmp_path, **bad))
    assert says in str(error.value) and '\n' not in str(error.value)


def test_missing_lists_say_where_to_get_them(tmp_path):
    with pytest.raises(UserError, match='RecognitionTask.zip') as error:
        hf.read_lists(tmp_path)
    for command in ('getData.py --lists-only', 'makeSplit.py'):
        name, _, flag = command.partition(' ')
        assert f'python {command} --root {tmp_path}' in str(error.value)


def test_official_lists(real_data):
    for split, (train, test) in {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}.items():
        lists = hf.read_lists(real_data, split)
        assert (len(lists.train), len(lists.test), len(lists.classes)) == (train, test, 101)


def clips(groups, per_group=3, classes=('A', 'B')):
    return [hf.Clip(f'v_{c}_g{g:02d}_c{i}', c, label, f'g{g:02d}', None)
            for label, c in enumerate(classes) for g in range(groups) for i in range(per_group)]


def test_validation_holds_out_whole_groups_of_every_class():
    training, validation = hf.hold_out_groups(clips(18))
    assert len(training) + len(validation) == 108
    sides = [{(c.class_name, c.group) for c in side} for side in (training, validation)]
    assert not sides[0] & sides[1]
    assert [sum(c == name for c, _ in sides[1]) for name in 'AB'] == [3, 3]  # 18 // 5
    # another seed, other groups
    assert validation != hf.hold_out_groups(clips(18), seed=1)[1]
    # of few groups one, of one none
    assert [len(hf.hold_out_groups(clips(groups))[1]) for groups in (1, 2, 4)] == [0, 6, 6]


def test_held_out_groups_do_not_depend_on_other_classes():
    both = hf.hold_out_groups(clips(10))[1]
    for name in 'AB':
        alone = hf.hold_out_groups(clips(10, classes=(name,)))[1]
        assert [c.name for c in both if c.class_name == name] == [c.name for c in alone]


def test_group_of_a_name():
    assert [hf.group_of(name) for name in ('v_A_g07_c02', 'v_A_g07', 'v_g07_A', 'A')] == [
        'g07', 'g07', 'v_g07_A', 'A']


def test_a_file_is_looked_for_as_given_then_in_the_root(tmp_path):
    (tmp_path / 'a').touch()
    assert files.find_file('a', tmp_path) == tmp_path / 'a'
    assert files.find_file(tmp_path / 'a', tmp_path / 'b') == tmp_path / 'a'


def test_another_class_list_is_refused_naming_both(tmp_path):
    path = tmp_path / 'p.hdf5'
    predictionfile.write_predictions(path, [('v', numpy.ones((2, 2)) / 2)], ['A', 'B'], 'x', 1)
    with pytest.raises(UserError, match='class 2 is B there, C here'):
        predictionfile.read_predictions(path, [], ['A', 'C'])


@pytest.mark.parametrize('name, command', [
    ('testPredictions1024.hdf5', 'python save_hdf5.py'),
    ('validationPredictions1024_flow_late.hdf5', 'python save_hdf5.py --stream flow --fusion late'),
    ('RNN_testPredictions.hdf5', 'python rnn.py'),
    ('RNN_flow_testPredictions.hdf5', 'python rnn.py --stream flow'),
    ('RNN_validationPredictions.hdf5', 'python rnn.py'),
    ('deep_validationPredictions.hdf5', 'python rnn.py --name deep'),
    ('deep_testPredictions.hdf5', 'python rnn.py --name deep')])
def test_a_prediction_file_tells_who_makes_it(name, command):
    assert variants.maker_of(f'dir/{name}') == f'{command} --root dir'
    assert variants.maker_of(name) == command
    assert variants.maker_of(f'my dir/{name}', 2) == f"{command} --root 'my dir' --split 2"


@pytest.mark.parametrize('name', ['nofile.hdf5', 'RNN', 'RNN.hdf5', 'dir/my.testPredictions.hdf5'])
def test_of_a_file_that_no_stage_makes_no_command_is_named(name):
    assert variants.maker_of(name) == 'the stage that writes it'


@pytest.mark.parametrize('script, flags', [
    ('rnn', []), ('save_hdf5', []), ('normalizeData', []), ('opticalFlow', ['1']),
    ('predict', ['a.avi']), ('sweep', ['runs.txt']), ('generate_pbs', ['--stage', 'rnn'])])
def test_a_root_that_is_no_folder_is_all_that_is_told(script, flags, tmp_path):
    nowhere = tmp_path / 'nowhere'
    done = run_stage(f'{script}.py', *flags, '--root', nowhere)
    assert done.returncode == 1 and done.stderr == f'error: {nowhere}: no such folder\n'
    assert not nowhere.exists()


@pytest.mark.parametrize('flags, says', [
    ([], 'the same command goes on'),
    (['--restart'], 'the same command without --restart goes on')])
def test_ctrl_c_says_how_to_go_on(flags, says, monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt
    monkeypatch.setattr('sys.argv', ['rnn.py', *flags])
    # It would stay for the tests that come after, and end the process at their signals.
    monkeypatch.setattr(stage, '_leave_in_time', lambda patience: None)
    old = {number: signal.getsignal(number) for number in stage.STOPPING}
    try:
        with pytest.raises(SystemExit) as stopped:
            stage.run(stop)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    told = capsys.readouterr().err
    assert stopped.value.code == 130 and says in told and told.count('\n') == 1


def group_clips(*shown):
    """Clips (class, group, how many)."""
    return [hf.Clip(f'v_{c}_{g}_c{i:02d}', c, 'ABCD'.index(c), g, None)
            for c, g, n in shown for i in range(n)]


def test_folds_hold_out_each_group_once_and_alike(capsys):
    clips = group_clips(*((c, f'g{g:02d}', 2 + g % 3) for c in 'ABCD' for g in range(18)))
    held = [hf.hold_out_fold(clips, f'{k}/5') for k in range(1, 6)]
    groups = [{clip.group for clip in validation} for _, validation in held]
    assert sorted(g for one in groups for g in one) == sorted({clip.group for clip in clips})
    assert sorted(map(len, groups)) == [3, 3, 4, 4, 4]
    for training, validation in held:
        assert not {c.group for c in training} & {c.group for c in validation}
        assert sorted(training + validation) == sorted(clips)
        assert {c.class_name for c in training} == {c.class_name for c in validation} == {*'ABCD'}
    assert max(len(v) for _, v in held) - min(len(v) for _, v in held) <= 8  # of 216
    assert hf.hold_out_fold(list(reversed(clips)), '2/5')[1][::-1] == held[1][1]
    assert not capsys.readouterr().out


def test_folds_of_single_clips_hold_some_of_each_class():
    clips = group_clips(*((c, f'{c}{g}', 1) for c in 'ABCD' for g in range(10)))
    for k in range(1, 6):
        validation = hf.hold_out_fold(clips, f'{k}/5')[1]
        assert sorted(clip.class_name for clip in validation) == sorted('ABCD' * 2)


def test_as_many_folds_as_groups_leave_one_out_and_more_are_refused(capsys):
    # Fewer clips of each class than there are persons; only x shows D.
    clips = group_clips(('A', 'x', 1), ('B', 'y', 1), ('C', 'z', 1), ('A', 'y', 1), ('D', 'x', 2))
    held = [{clip.group for clip in hf.hold_out_fold(clips, f'{k}/3')[1]} for k in (1, 2, 3)]
    assert held == [{'x'}, {'y'}, {'z'}]
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith('--fold 1/3: holds out all groups of 1 classes, D first')
    assert len(out) == 3  # B has y alone, C z
    with pytest.raises(UserError, match='has 3 groups, so at most 3 folds: --fold 1/3 leaves out'):
        hf.hold_out_fold(clips, '1/4')
    with pytest.raises(UserError, match='has 1 groups, too few'):
        hf.hold_out_fold(group_clips(('A', 'x', 5)), '1/2')


def test_advice_for_another_split_makes_as_many(packed):
    for split in (2, 3):
        with pytest.raises(UserError, match=rf'list0{split}.txt: .*makeSplit.py --root '
                                            rf'{packed} --clips VIDEOS --splits {split}$'):
            hf.read_lists(packed, split)
    (packed / variants.LISTS / 'testlist01.txt').unlink()
    with pytest.raises(UserError, match='--clips VIDEOS$'):
        hf.read_lists(packed)
