"""Every input of the corpus of badClips.py is used, or refused in one line that names it."""
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest

import badClips
import checkData
import helperFunctions as hf
from engine import variants
from engine.reporting import predictionfile
import save_hdf5
from badClips import REFUSED, SHORT, WHOLE
from engine.errors import UserError
from engine.files import load_npy
from engine.video.container import read_header
from engine.video.decode import Frames, VideoError, count_frames
from smallSet import copy_set, run_stage

PUSH_UPS = hf.Clip('clip', 'PushUps', 1, 'g01', None)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return badClips.make(tmp_path_factory.mktemp('corpus'))


def refused(action, name, error_class=UserError):
    """Runs the action; returns whether it was refused, or fails if it was done badly."""
    try:
        action()
    except error_class as error:
        text = str(error)
        assert name in text and len(text.splitlines()) == 1, text
        assert len(text) > len(name) + 5, f'{text}: gives no reason'
        return True
    return False


def check(outcomes):
    """[(case, outcome)]: all as expected."""
    wrong = [f'{case.path}: {outcome}, not {" or ".join(case.expected)}'
             for case, outcome in outcomes if outcome not in case.expected]
    assert not wrong, '\n'.join(wrong)


def test_corpus_is_large_and_the_same_from_the_same_seed(corpus, tmp_path):
    again = badClips.make(tmp_path)
    assert len(corpus) == len(again) >= 200
    for one, other in zip(corpus, again):
        assert one.expected == other.expected and one.path.name == other.path.name
        if one.kind in ('video', 'npy') and one.path.is_file():
            assert one.path.read_bytes() == other.path.read_bytes(), one.path.name


def test_clips(corpus):
    def outcome(case):
        frames = Frames(case.path, size=32)

        def decode():
            for batch in frames:
                assert batch.shape[1:] == (32, 32, 3) and batch.dtype == numpy.uint8
        if refused(decode, str(case.path), VideoError):
            return REFUSED
        return SHORT if frames.remark and frames.remark.kind == 'short' else WHOLE
    cases = [case for case in corpus if case.kind == 'video']
    with ThreadPoolExecutor(2) as pool:
        check(list(zip(cases, pool.map(outcome, cases))))


def test_counting_clips_agrees_with_decoding_them(corpus):
    for case in [case for case in corpus if case.kind == 'video'][::6]:
        frames, got = Frames(case.path, size=32), []
        no_frame = refused(lambda: got.append(count_frames(case.path)), str(case.path), VideoError)
        if no_frame:
            assert REFUSED in case.expected
        else:
            assert got == [sum(len(batch) for batch in frames)]


def test_header_of_an_avi_and_of_another_container(corpus, tmp_path):
    whole = next(case.path for case in corpus if case.kind == 'video')
    assert read_header(whole) == (badClips.FRAMES, 25)
    badClips.encode(tmp_path / 'clip.mp4', 'libx264')
    assert read_header(tmp_path / 'clip.mp4') == (badClips.FRAMES, 25)


def test_arrays(corpus, tmp_path):
    clip = PUSH_UPS
    features, softmax = (variants.output_path(tmp_path, folder, clip)
                         for folder in (variants.FEATURES, variants.FRAME_PREDICTIONS))
    for path in (features, softmax):
        path.parent.mkdir(parents=True)
    outcomes = []
    for case in corpus:
        if case.kind != 'npy':
            continue
        features.unlink(missing_ok=True)
        features.symlink_to(case.path)
        frames = 1 if case.path.stem == 'one frame' else 9
        numpy.save(softmax, numpy.full((frames, 2), 0.5, 'f4'))
        well, wrong = save_hdf5.find_clips(tmp_path, [clip], badClips.N_FEATURES, 2)
        for reason in wrong.values():
            assert clip.name in reason and len(reason.splitlines()) == 1, reason
        outcomes.append((case, WHOLE if well else REFUSED))
        # read whole, not mapped: the same files must be refused
        refused(lambda: load_npy(case.path), str(case.path))
    check(outcomes)


def test_prediction_files(corpus):
    def outcome(path):
        def read():
            predictionfile.read_predictions(path, [PUSH_UPS], list(badClips.CLASSES),
                                            'python save_hdf5.py')
        return REFUSED if refused(read, str(path)) else WHOLE
    check([(case, outcome(case.path)) for case in corpus if case.kind == 'hdf5'])


def test_lists(corpus):
    def outcome(case):
        found = []
        if refused(lambda: found.append(hf.read_lists(case.path)), variants.LISTS):
            return REFUSED
        assert [len(part) for part in found[0]] == [2, 2, 2]
        assert [clip.label for part in found[0][1:] for clip in part] == [0, 1, 0, 1]
        return WHOLE
    outcomes = [(case, outcome(case)) for case in corpus if case.kind == 'lists']
    check([(case._replace(path=(case.path / 'case.txt').read_text()), got)
           for case, got in outcomes])


@pytest.mark.parametrize('listed, there', [('HandstandPushups', 'HandStandPushups'),
                                           ('HandStandPushups', 'HandstandPushups')])
def test_clips_of_handstand_pushups_are_found_however_classes_spell_them(tmp_path, listed, there):
    folder = tmp_path / variants.LISTS
    folder.mkdir()
    (tmp_path / variants.CLIPS / there).mkdir(parents=True)
    (folder / 'classInd.txt').write_text(f'1 {there}\n')
    for name, group in (('train', 2), ('test', 1)):
        (folder / f'{name}list01.txt').write_text(f'{listed}/v_HandStandPushups_g0{group}.avi\n')
    assert {clip.path.parent.name for part in hf.read_lists(tmp_path)[1:]
            for clip in part} == {there}


# ------------------------------------------------------------------- whole stages

@pytest.fixture
def mixed(small_set, tmp_path):
    """(root, clips): 24 clips, of which the first five are broken and the sixth is short."""
    root = copy_set(small_set, tmp_path / 'root')
    clips = sorted(sum(hf.read_lists(root)[1:], []), key=lambda clip: clip.path)
    (root / variants.CLIPS).unlink()
    for clip in clips:
        clip.path.parent.mkdir(parents=True, exist_ok=True)
        data = (small_set / clip.path.relative_to(root)).read_bytes()
        index = clips.index(clip)
        if index == 5:
            # the header promises twice the frames
            frames = 2 * int.from_bytes(data[48:52], 'little')
            data = data[:48] + frames.to_bytes(4, 'little') + data[52:]
        broken = {0: b'', 1: b'text\n' * 99, 2: data[:300], 3: bytes(999)}.get(index, data)
        if index != 4:
            clip.path.write_bytes(broken)
    return root, clips


def test_extraction_names_each_broken_clip_and_does_the_rest(mixed):
    root, clips = mixed
    done = run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--root', root)
    lines = done.stdout.splitlines()
    assert done.returncode == 3 and not done.stderr
    for clip in clips[:5]:
        assert sum(line.startswith(f'failed: {clip.path}: ') for line in lines) == 1
    assert sum(line.startswith(f'short: {clips[5].path}: ') for line in lines) == 1
    assert all(variants.output_path(root, variants.FEATURES, clip).is_file() for clip in clips[5:])


def test_inventory_of_a_mixed_folder(mixed):
    root, clips = mixed
    folder = clips[0].path.parent
    (folder / 'on no list.avi').write_bytes(clips[8].path.read_bytes())
    lists = root / variants.LISTS
    texts = {path.name: path.read_text() for path in lists.iterdir()}
    lists.unlink()
    lists.mkdir()
    for name, text in texts.items():
        (lists / name).write_text(text)
    other = hf.read_lists(root)
    leak = other.train[0]
    with open(lists / 'testlist01.txt', 'a') as f:
        f.write(f'{leak.class_name}/{leak.name}.avi\n')
    done = run_stage('checkData.py', '--root', root, '--json', root / 'found.json')
    lines = done.stdout.splitlines()
    assert done.returncode == 3 and not done.stderr
    assert all(len(line) <= 80 for line in lines if line.startswith((clips[0].class_name, 'all')))
    found = json.loads((root / 'found.json').read_text())
    assert found['missing'] == [str(clips[4].path)]
    assert sorted(line.split(': ')[0] for line in found['unreadable']) == sorted(
        str(clip.path) for clip in clips[:4])
    assert [line.split(': ')[0] for line in found['short']] == [str(clips[5].path)]
    assert found['extra'] == [str(folder / 'on no list.avi')]
    assert found['clip on both lists'] == [leak.name]
    assert found['group on both lists'] == [f'{leak.class_name}/{leak.group}']
    assert [sorted(same) for same in found['same bytes']] == [
        sorted([str(folder / 'on no list.avi'), str(clips[8].path)])]
    for kind in checkData.KINDS:
        assert sum(line.startswith(f'{kind}: ') for line in lines) == len(found[kind])
    whole = sum(sum(len(b) for b in Frames(c.path, size=16)) for c in clips[5:])
    assert sum(row['frames'] for row in found['classes'].values()) == whole


def test_inventory_of_a_good_root_and_of_none(small_set, tmp_path):
    root = copy_set(small_set, tmp_path / 'root')
    done = run_stage('checkData.py', '--quick', '--root', root)
    assert done.returncode == 0 and done.stdout.endswith('24 of 24 clips found; all is well\n')
    (root / variants.CLIPS).unlink()
    done = run_stage('checkData.py', '--root', root)
    assert done.returncode == 1 and done.stderr.startswith('error: ')
    assert len(done.stderr.splitlines()) == 1 and str(root / variants.CLIPS) in done.stderr


def test_copies_within_a_group_are_said_and_those_between_groups_found(put_set):
    """A split divides groups, never what is in one."""
    root = put_set({'v_A_g01_c01': 0, 'v_A_g01_c02': 0, 'v_A_g02_c01': 1})
    done = run_stage('checkData.py', '--quick', '--root', root)
    assert done.returncode == 0 and done.stdout.endswith('3 of 3 clips found; all is well\n')
    assert (f'{checkData.REMARK}: UCF-101/A/v_A_g01_c01.avi\n{" " * len(checkData.REMARK)}= '
            'UCF-101/A/v_A_g01_c02.avi') in done.stdout
    root = put_set({'v_A_g01_c01': 0, 'v_A_g01_c02': 1, 'v_A_g02_c01': 0})
    done = run_stage('checkData.py', '--quick', '--root', root)
    assert done.returncode == 3 and done.stdout.endswith('1 stored twice\n')
    assert checkData.REMARK not in done.stdout


@pytest.fixture
def put_set(small_set, tmp_path):
    """Makes a root of one class: {name: number of the clip of small_set that it holds}; those of
    group g02 test."""
    def put_set(held):
        root = tmp_path / f'root{len(list(tmp_path.iterdir()))}'
        clips = [clip.path for clip in hf.read_lists(small_set).train]
        for folder in (root / variants.LISTS, root / variants.CLIPS / 'A'):
            folder.mkdir(parents=True)
        (root / variants.LISTS / 'classInd.txt').write_text('1 A\n')
        for side in 'train', 'test':
            (root / variants.LISTS / f'{side}list01.txt').write_text(''.join(
                f'A/{name}.avi\n' for name in held if ('_g02_' in name) == (side == 'test')))
        for name, number in held.items():
            shutil.copyfile(clips[number], root / variants.CLIPS / 'A' / f'{name}.avi')
        return root
    return put_set
