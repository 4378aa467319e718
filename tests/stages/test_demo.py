"""The demo's clips: whole files, official lists, and nothing in a single frame to betray order."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import demo
from VGGNet import VGGNet, load_vgg
from engine.drawing.clips import (is_whole, make_clip, make_phases, recipe_of, render_clip,
                                    write_avi)
from engine.drawing.stills import make_stills, still_labels
from engine.drawing.shapes import CLASSES, HEIGHT, PAIRS, WIDTH
from engine.errors import UserError
from engine.weights.modelfile import save_model
from engine.video.decode import Frames
from engine.video.preprocessing import preprocess
from helperFunctions import read_lists

GROUPS, CLIPS = 4, 2


def stage(*argv):
    args = demo.build_parser('--tiny' in argv).parse_args([str(a) for a in argv])
    return args.stage(args)


def make(root, *more):
    stage('clips', '--tiny', '--root', root, '--workers', 2, *more)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('demo')
    make(root)
    return root


def clips_of(root):
    return sorted(Path(root).glob('UCF-101/*/*.avi'))


# ---------------------------------------------------------------- files and lists

def test_clips_decode_to_what_was_drawn(root):
    assert len(clips_of(root)) == len(CLASSES) * GROUPS * CLIPS
    for class_name in ('Grow', 'MoveLeft', 'SquatThenStretch', 'TurnClockwise'):
        drawn = render_clip(0, 3, class_name, 2, 12, 16)
        reader = imageio_ffmpeg.read_frames(
            str(root / f'UCF-101/{class_name}/v_{class_name}_g03_c02.avi'))
        meta = next(reader)
        assert (meta['size'], meta['fps'], meta['codec']) == ((320, 240), 25, 'mpeg4')
        decoded = [numpy.frombuffer(f, numpy.uint8).reshape(240, 320, 3) for f in reader]
        assert len(decoded) == len(drawn)
        assert abs(numpy.stack(decoded).astype(int) - drawn).mean() < 4


def test_every_clip_has_the_length_asked_for(root):
    for path in clips_of(root)[::5]:
        assert 12 <= sum(len(batch) for batch in Frames(path, size=32)) <= 16


def test_lists_have_the_official_format(root):
    folder = root / 'ucfTrainTestlist'
    assert (folder / 'classInd.txt').read_bytes().startswith(b'1 Grow\r\n2 MoveLeft\r\n')
    for split in (1, 2, 3):
        train = (folder / f'trainlist{split:02d}.txt').read_bytes()
        test = (folder / f'testlist{split:02d}.txt').read_bytes()
        line = rb'(?P<name>[A-Za-z]+)/v_(?P=name)_g\d\d_c\d\d\.avi'
        assert re.fullmatch(rb'(%s \d+\r\n)+' % line, train)
        assert re.fullmatch(rb'(%s\r\n)+' % line, test)
        lists = read_lists(root, split)  # checks labels, doubles and groups on both sides
        assert lists.classes == CLASSES
        assert len(lists.train) == 3 * len(lists.test)
        assert {c.path for c in lists.train + lists.test} == set(clips_of(root))
        assert not {c.group for c in lists.train} & {c.group for c in lists.test}


def test_same_seed_same_bytes(root, tmp_path):
    path = clips_of(root)[11]
    class_name, group, clip = re.fullmatch(r'v_(\w+)_g(\d+)_c(\d+)', path.stem).groups()
    again = []
    for seed in (0, 1):
        again.append(tmp_path / f'{seed}.avi')
        make_clip((str(again[-1]), seed, int(group), class_name, int(clip), (12, 16)))
    assert again[0].read_bytes() == path.read_bytes() != again[1].read_bytes()
    contents = [p.read_bytes() for p in clips_of(root)]
    assert len(set(contents)) == len(contents)


def test_second_run_makes_only_what_is_missing_or_not_whole(root, capfd):
    paths = clips_of(root)
    good = [path.read_bytes() for path in paths[:3]]
    paths[0].unlink()
    paths[1].write_bytes(good[1][:-100])
    paths[2].write_bytes(good[2].replace(b'seed 0', b'seed 7'))
    dates = [path.stat().st_mtime_ns for path in paths[3:]]
    # what a killed run and one that is still at work have left
    old, young = (paths[n].with_name(f'.{paths[n].name}.abc.part') for n in (0, 5))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    make(root)
    assert not old.exists() and young.exists()
    young.unlink()
    assert '61 clips are there already' in capfd.readouterr().out
    assert [path.read_bytes() for path in paths[:3]] == good
    assert [path.stat().st_mtime_ns for path in paths[3:]] == dates


def test_interrupted_run_leaves_no_half_file(tmp_path):
    command = [sys.executable, 'demo.py', 'clips', '--root', tmp_path, '--workers', '2',
               '--groups', '3']
    run = subprocess.Popen(command, cwd=Path(demo.__file__).parent, start_new_session=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.time() + 60
    while not clips_of(tmp_path) and time.time() < until:
        time.sleep(.05)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and 'Traceback' not in errors
    made = clips_of(tmp_path)
    assert made and len(made) < 96 and not list(tmp_path.rglob('*.part'))
    assert all(is_whole(path, recipe_of(0, 48, 72)) for path in made)
    assert not (tmp_path / 'ucfTrainTestlist').exists()


def test_a_file_that_is_removed_while_ffmpeg_starts_stays_away(tmp_path):
    path = tmp_path / 'x.avi'
    path.touch()

    def frames():
        path.unlink()  # as a signal does
        yield numpy.zeros((HEIGHT, WIDTH, 3), numpy.uint8)
    write_avi(path, frames(), 'x')
    assert not path.exists()


def test_numbers_that_cannot_work_are_refused(tmp_path):
    for words in (('clips', '--groups', 1), ('clips', '--shortest', 9, '--longest', 8),
                  ('pretrain', '--stills', 8)):
        with pytest.raises(UserError, match='--'):
            stage(*words, '--root', tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_data_set_is_left_alone(tmp_path):
    folder = tmp_path / 'ucfTrainTestlist'
    folder.mkdir()
    (folder / 'classInd.txt').write_text('1 ApplyEyeMakeup\r\n')
    with pytest.raises(UserError, match='another data set'):
        make(tmp_path)
    assert not (tmp_path / 'UCF-101').exists()


# ---------------------------------------------------------------- single frames say nothing

@pytest.fixture(scope='module')
def pairs():
    """For each class: ([clips as (T, 60, 80, 3) int16], [group])."""
    found = {}
    for pair in PAIRS:
        for name in pair[:2]:
            made = [(render_clip(5, g, name, c, 28, 32)[:, ::4, ::4].astype(numpy.int16), g)
                    for g in range(1, 7) for c in (1, 2)]
            found[name] = [clip for clip, _ in made], [g for _, g in made]
    return found


@pytest.mark.parametrize('pair', PAIRS, ids=lambda pair: pair[0])
def test_a_single_frame_does_not_tell_the_direction(pairs, pair):
    x, y, groups, means = [], [], [], []
    for label, name in enumerate(pair[:2]):
        for clip, group in zip(*pairs[name]):
            small = clip[:, ::3, ::3].reshape(len(clip), -1) / 64 - 2
            x += list(small[::4])
            y += [label] * len(small[::4])
            groups += [group] * len(small[::4])
            means.append((small.mean(axis=0), label, group))
    for x, y, groups in ((x, y, groups), zip(*means)):
        x, y, groups = numpy.stack(x), numpy.array(y), numpy.array(groups)
        right = 0
        for fold in range(3):  # groups held out, as in the lists
            out = groups % 3 == fold
            model = LogisticRegression(C=.01, max_iter=300).fit(x[~out], y[~out])
            right += (model.predict(x[out]) == y[out]).sum()
        # Frames of a clip are alike, so there are hardly more than 24 independent answers.
        assert .25 < right / len(y) < .75


def _order(clip):
    """Numbers that only change their sign when a clip is played backwards: (28,).

    Where and how large the changed part of each picture is, measured on the finished
    pictures; then how often each measure rises, and which of two runs ahead of the other.
    """
    changed = abs(clip - numpy.median(clip, axis=0)).sum(axis=3) > 70
    columns, rows = changed.sum(axis=1), changed.sum(axis=2)
    mass = changed.sum(axis=(1, 2)) + 1
    x = (columns * numpy.arange(80)).sum(axis=1) / mass
    y = (rows * numpy.arange(60)).sum(axis=1) / mass
    measures = numpy.stack([
        mass, x, y, (rows > 1).argmax(axis=1), (columns > 1).sum(axis=1),
        (rows > 1).sum(axis=1), (columns > 1).argmax(axis=1)], axis=1).astype(float)
    measures = (measures - measures.mean(axis=0)) / (measures.std(axis=0) + 1e-3)
    rises = numpy.sign(numpy.diff(measures, axis=0)).mean(axis=0)
    ahead = measures[:-4].T @ measures[4:] / len(measures)
    return numpy.concatenate([3 * rises, (ahead - ahead.T)[numpy.triu_indices(7, 1)]])


@pytest.mark.parametrize('pair', PAIRS, ids=lambda pair: pair[0])
def test_the_order_of_frames_tells_the_direction(pairs, pair):
    x = numpy.stack([_order(clip) for name in pair[:2] for clip in pairs[name][0]])
    groups = numpy.concatenate([pairs[name][1] for name in pair[:2]])
    y = numpy.repeat([0, 1], len(x) // 2)
    right = 0
    for fold in range(3):
        out = groups % 3 == fold
        model = LogisticRegression(C=.1, fit_intercept=False, max_iter=1000)
        # A training clip played backwards is a clip of the other class.
        model.fit(numpy.concatenate([x[~out], -x[~out]]),
                  numpy.concatenate([y[~out], 1 - y[~out]]))
        right += (model.predict(x[out]) == y[out]).sum()
    assert right / len(y) > .8


def test_every_frame_of_either_direction_has_a_uniform_phase():
    forwards = numpy.stack([make_phases(numpy.random.default_rng(i), 40) for i in range(600)])
    for j in (0, 13, 39):  # and backwards the frames are the same, counted from the end
        assert stats.kstest(forwards[:, j], 'uniform').pvalue > .001
    steps = numpy.diff(forwards, axis=1) % 1
    assert (steps > 0).all() and (steps < .1).all()
    # Played backwards the speeds are distributed alike at both ends.
    assert stats.ks_2samp(steps[:, 0], steps[:, -1]).pvalue > .001


def test_a_backward_clip_is_no_forward_clip_reversed(root):
    a = render_clip(0, 1, 'MoveLeft', 1, 12, 12)
    for clip in (1, 2):
        b = render_clip(0, 1, 'MoveRight', clip, 12, 12)[::-1]
        assert abs(a.astype(int) - b).mean() > 1


# ---------------------------------------------------------------- the stand-in for ImageNet

def test_stills_are_drawn_the_same_again_and_labelled():
    a, b = make_stills((3, 0, 40, 64)), make_stills((3, 0, 40, 64))
    assert a[0].shape == (40, 64, 64, 3) and a[0].dtype == numpy.uint8
    assert (a[0] == b[0]).all() and (a[1] == b[1]).all()
    assert (make_stills((3, 1, 40, 64))[0] != a[0]).any()
    _, n_labels = still_labels()
    assert 0 <= a[1].min() and a[1].max() < n_labels and len(set(a[1])) > 15


def test_training_learns():
    stills, labels = make_stills((0, 0, 24, 32))
    kinds = (numpy.searchsorted(still_labels()[0], labels, side='right') - 1)
    numpy.random.seed(0)
    model = VGGNet(channels=(4, 8, 8, 8, 8), hidden=16, n_classes=4, input_size=32)
    losses = list(demo.train(model, stills, kinds.astype('i'), 40, 8,
                              numpy.random.default_rng(0)))
    assert losses[-1] < .5 * losses[0]


def test_pretrain_writes_a_model_that_the_stages_load(tmp_path, capfd):
    short = ('pretrain', '--tiny', '--stills', 32, '--root', tmp_path, '--workers')
    stage(*short, 2)
    model, card = load_vgg(tmp_path / 'VGG.model')
    assert 'not an ImageNet network' in card['note']
    stills, _ = make_stills((0, 1, 4, 64))
    assert numpy.isfinite(model(preprocess(stills)).array).all()
    first = (tmp_path / 'VGG.model').read_bytes()
    stage(*short, 2)
    assert 'is there already' in capfd.readouterr().out
    (tmp_path / 'VGG.model').unlink()
    stage(*short, 1)
    assert (tmp_path / 'VGG.model').read_bytes() == first


def test_pretrain_keeps_a_model_that_is_not_its_own(tmp_path):
    path = tmp_path / 'VGG.model'
    save_model(path, VGGNet(channels=(1,) * 5, hidden=2, n_classes=2, input_size=32), {})
    before = path.read_bytes()
    with pytest.raises(UserError, match='not overwritten'):
        stage('pretrain', '--tiny', '--root', tmp_path)
    assert path.read_bytes() == before
