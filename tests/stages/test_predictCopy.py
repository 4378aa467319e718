"""What predict.py draws and writes: windows in time, the unseen, the copy that fails."""
import os

import numpy
import pytest
from PIL import Image

import predict
from engine.drawing import plotstyle
from engine.video.container import Shape
from engine.video.decode import VideoError
from engine.video.overlay import panel
from predictSet import about, call, draw, objects


@pytest.fixture(scope='module')
def root(predict_root):
    return predict_root


@pytest.mark.parametrize('flags', [(), ('--step', 2), ('--step', 7)])
def test_windows_overlap_by_three_quarters_whatever_the_step(root, tmp_path, flags):
    source = draw(tmp_path / 'a.avi', '-c:v', 'libx264', '-pix_fmt', 'yuv420p', '-an', frames=75,
                  rate=15)
    found, = objects(call('--root', root, '--json', *flags, source))
    assert found['seconds'] == pytest.approx(5, abs=0.01) and found['stride'] == 5
    windows = found['windows']
    assert all(later['from'] < window['to'] for window, later in zip(windows, windows[1:]))
    assert windows[-1]['to'] - windows[0]['from'] == pytest.approx(5, abs=0.07)


def test_one_frame_of_many_stands_for_all_of_the_film(root, tmp_path):
    source = draw(tmp_path / 'a.mp4', frames=30)
    found, = objects(call('--root', root, '--json', '--step', 100, source))
    assert found['frames_seen'] == 1 and found['seconds'] == pytest.approx(1.2, abs=0.05)


def test_what_no_window_saw_is_shown_as_unseen(root, tmp_path):
    source = draw(tmp_path / 'a.mp4', '-vf', 'drawbox=c=gray:t=fill', '-pix_fmt', 'yuv420p',
                  frames=120, size='320x240')
    call('--root', root, '--out', tmp_path, '--window', 20, '--stride', 50, source)
    frames = about(tmp_path / 'a.predicted.mp4')[2]
    # the bar of the best class is blue; between the windows there is none
    blue = [(frame[-60:-10, 10:100].astype(int) @ [-1, 0, 1] > 60).sum() for frame in frames]
    seen = [20 > i or 50 <= i < 70 or 100 <= i for i in range(120)]
    assert [count > 100 for count in blue] == seen
    with Image.open(tmp_path / 'a.predicted.png') as strip:
        plain = call('--root', root, '--out', tmp_path / 'o', '--window', 20, source)
        assert plain.returncode == 0
        with Image.open(tmp_path / 'o' / 'a.predicted.png') as whole:
            assert strip.size == whole.size and strip.tobytes() != whole.tobytes()


def test_the_copy_never_costs_the_result(root, tmp_path, monkeypatch):
    def no_copy(source, *_):
        raise VideoError(f'{source}: no labelled copy could be made (disk on fire)')
    monkeypatch.setattr(predict, 'label_video', no_copy)
    sources = [draw(tmp_path / f'{name}.mp4', frames=5) for name in 'ab']
    done = call('--root', root, '--json', '--out', tmp_path / 'out', *sources)
    assert done.returncode == 3 and done.stderr.count('disk on fire') == 2
    assert [found['frames_seen'] for found in objects(done)] == [5, 5]
    assert sorted(os.listdir(tmp_path / 'out')) == [
        f'{name}.predicted.{end}' for name in 'ab' for end in ('json', 'png')]


def test_a_strip_that_cannot_be_drawn_costs_nothing_else(root, tmp_path, monkeypatch):
    monkeypatch.setattr(plotstyle, 'failure', lambda: 'ImportError: no matplotlib')
    sources = [draw(tmp_path / f'{name}.mp4', frames=5) for name in 'ab']
    done = call('--root', root, '--out', tmp_path / 'out', *sources)
    assert done.returncode == 3 and done.stderr.count('no matplotlib') == 2
    assert sorted(os.listdir(tmp_path / 'out')) == [
        f'{name}.predicted.{end}' for name in 'ab' for end in ('json', 'mp4')]


def test_names_of_any_letters_and_bytes_are_drawn(root, tmp_path, recwarn):
    source = os.fsencode(tmp_path) + '/動画 🎬 $x_y$ '.encode() + b'caf\xe9.mp4'
    os.rename(draw(tmp_path / 'a.mp4', frames=5), source)
    done = call('--root', root, '--out', tmp_path / 'out', os.fsdecode(source))
    assert done.returncode == 0 and len(os.listdir(tmp_path / 'out')) == 3
    rows = [('跑 步', 0.7), ('caf\udce9\n🎬', 0.2)]
    drawn, other = (numpy.asarray(panel(these, Shape('', 320, 240, 1, ())))
                    for these in (rows, [('', 0.7), ('', 0.2)]))
    assert (drawn != other).any(axis=2).sum() > 40 and not recwarn.list
