"""Optical flow: known motions, bytes, files, what augmentation makes of it, and its colours."""
import subprocess

import cv2
import numpy
import pytest

from bench.flow import move, textures
from engine import variants
from engine.errors import UserError
from engine.video.augmentation import Augmentation, mirror, views
from engine.video.decode import count_frames, read_frames
from engine.video.ffmpeg import command
from engine.video.flow import (FlowWriter, colours, dequantise, flow_of_frames, get_method,
                               quantise, save_flow, stored_frames, wheel)
from flowSet import clips_of, frames_of

# ------------------------------------------------------------------------- known motion

@pytest.mark.parametrize('motion', [dict(dx=.3, dy=-.2), dict(dx=2.5, dy=1.5),
                                    dict(dx=-6.3, dy=3.1), dict(zoom=1.03)])
def test_known_motion_is_found_within_a_fifth_of_a_pixel(motion):
    random = numpy.random.RandomState(0)
    for picture in textures(2, (320, 240), random):
        before, after, flow, valid = move(picture, None, random, **motion)
        found = dequantise(quantise(get_method('dis-fast')(before, after), 20), 20)
        error = numpy.hypot(*numpy.moveaxis(found - flow, 2, 0))[valid]
        assert error.mean() < 0.2
        # x is to the right and y down, and not the other way round
        for channel in (0, 1):
            told, truth = found[..., channel][valid].mean(), flow[..., channel][valid].mean()
            assert abs(told - truth) < 0.2


def test_a_shifted_real_frame(real_data):
    clip = sorted((real_data / variants.CLIPS / 'BasketballDunk').glob('*.avi'))[3]
    frame = cv2.cvtColor(read_frames(clip, [10], (320, 240))[0], cv2.COLOR_BGR2GRAY)
    moved = cv2.warpAffine(frame, numpy.float64([[1, 0, 3.4], [0, 1, -1.7]]), (320, 240),
                           flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    flow = get_method('dis-fast')(frame, moved)[20:-20, 20:-20]
    assert abs(numpy.median(flow[..., 0]) - 3.4) < 0.2
    assert abs(numpy.median(flow[..., 1]) + 1.7) < 0.2


def test_a_method_that_this_opencv_lacks_is_one_line(tmp_path):
    if hasattr(cv2, 'optflow_DualTVL1OpticalFlow'):
        pytest.skip('it has TV-L1')
    with pytest.raises(UserError, match='opencv-contrib-python-headless'):
        get_method('tvl1')


# -------------------------------------------------------------------------------- bytes

@pytest.mark.parametrize('bound', [20, 40, 3.5])
def test_quantised_and_back_within_half_a_step_and_negated_exactly(bound):
    flow = numpy.random.RandomState(0).uniform(-bound, bound, (40, 50, 2)).astype('f')
    flow[0, :5] = [[0, bound], [bound, 0], [-bound, 0], [0, 0], [bound / 254, -bound / 254]]
    frame = quantise(flow, bound)
    assert frame.dtype == numpy.uint8 and (frame[..., 2] == 128).all() and frame.min() >= 1
    assert tuple(frame[0, 3]) == (128, 128, 128)
    assert abs(dequantise(frame, bound) - flow).max() <= bound / 254 * 1.0001
    numpy.testing.assert_array_equal(quantise(-flow, bound)[..., :2].astype(int),
                                     256 - frame[..., :2].astype(int))
    far = quantise(numpy.float32([[[1e6, -1e6]]]), bound)
    assert tuple(far[0, 0]) == (255, 1, 128)


def test_as_many_flows_as_frames_and_the_last_is_repeated():
    random = numpy.random.RandomState(0)
    frames = random.randint(256, size=(4, 48, 64, 3)).astype(numpy.uint8)

    def method(before, after):
        return numpy.full((48, 64, 2), float(after.mean()) - float(before.mean()), 'f')
    found = list(flow_of_frames(frames, method, 20))
    assert len(found) == 4
    numpy.testing.assert_array_equal(found[2], found[3])
    assert not numpy.array_equal(found[1], found[2])
    alone, = flow_of_frames(frames[:1], method, 20)
    assert (alone == 128).all()
    assert list(flow_of_frames([], method, 20)) == []


def test_stored_flow_is_read_back_nearly_as_it_was(real_data, tmp_path):
    clip = sorted((real_data / variants.CLIPS / 'PushUps').glob('*.avi'))[0]
    truth = numpy.stack(list(flow_of_frames(frames_of(clip, (320, 240))[:30],
                                            get_method('dis-fast'), 20)))
    path = tmp_path / 'flow.mkv'
    with FlowWriter(path, (320, 240)) as writer:
        for frame in truth:
            writer.write(frame)
    assert stored_frames(path) == count_frames(path) == 30
    got = frames_of(path, (320, 240))
    error = abs(got.astype(int) - truth)
    assert error[..., :2].mean() < 0.3 and numpy.percentile(error[..., :2], 99.9) <= 4
    assert error[..., 2].max() <= 3
    # as stages read it, scaled by ffmpeg: no channel runs into another
    small = frames_of(path, 64).astype(float)
    expected = numpy.stack([cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA)
                            for frame in truth])
    assert abs(small - expected).mean() < 0.4
    assert path.stat().st_size < 30 * 320 * 240 / 20


def test_a_file_cut_off_is_not_taken_for_whole(flow_set, tmp_path):
    path = next((flow_set / 'UCF-101_flow').rglob('*.mkv'))
    data = path.read_bytes()
    assert stored_frames(path) == count_frames(path)
    for i, harmed in enumerate((data[:-1], data[:300], data[:10], b'', data + b'x', b'text' * 99)):
        target = tmp_path / f'{i}.mkv'
        target.write_bytes(harmed)
        assert stored_frames(target) == 0
    assert stored_frames(tmp_path / 'none.mkv') == 0


def test_nothing_is_left_of_a_flow_that_was_stopped_or_cannot_be_written(small_set, tmp_path):
    clip = clips_of(small_set)[0]
    assert save_flow(clip.path, tmp_path / 'a.mkv', 'dis-fast', 20, (64, 48),
                     stopped=lambda: True) is None
    with pytest.raises(UserError, match='x.mkv: cannot be written'):
        with FlowWriter(tmp_path / 'x.mkv', (64, 48), codec=('-c:v', 'no-such-codec')) as writer:
            for _ in range(50):
                writer.write(numpy.full((48, 64, 3), 128, numpy.uint8))
    assert not list(tmp_path.iterdir())
def test_nothing_is_left_by_an_ffmpeg_that_was_starting(tmp_path, monkeypatch):
    started = []

    def interrupted(*args, **options):
        started.append(popen(*args, **options))
        raise KeyboardInterrupt
    command()  # looks for ffmpeg, by starting it
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, 'Popen', interrupted)
    with pytest.raises(KeyboardInterrupt), FlowWriter(tmp_path / 'x.mkv', (64, 48)):
        pass
    started[0].communicate(numpy.full((48, 64, 3), 128, numpy.uint8).tobytes())
    assert not list(tmp_path.iterdir())


def test_every_nth_frame(small_set, tmp_path):
    clip = clips_of(small_set)[0]
    taken = save_flow(clip.path, tmp_path / 'f.mkv', 'dis-fast', 20, (64, 48), step=3)
    expected = -(-count_frames(clip.path) // 3)
    assert taken.count == stored_frames(tmp_path / 'f.mkv') == expected
    frames = [cv2.cvtColor(f, cv2.COLOR_BGR2GRAY) for f in frames_of(clip.path, (64, 48))[::3]]
    truth = quantise(get_method('dis-fast')(frames[0], frames[1]), 20)
    first = read_frames(tmp_path / 'f.mkv', [0], (64, 48))[0]
    assert abs(first.astype(int) - truth).mean() < 0.5


# --------------------------------------------------------------- augmentation and colours

def test_a_mirrored_clip_has_the_mirrored_flow():
    """Flip of the flow against the flow of flipped frames: only x changes its sign."""
    random = numpy.random.RandomState(0)
    picture, = textures(1, (128, 128), random)
    before, after, _, _ = move(picture, None, random, dx=4, dy=2)
    method = get_method('dis-medium')
    flow = quantise(method(before, after), 20)
    of_mirrored = quantise(method(before[:, ::-1].copy(), after[:, ::-1].copy()), 20)
    mirrored = mirror(flow[None], 'flow')[0]
    inner = (slice(12, -12), slice(12, -12))
    assert abs(mirrored.astype(int) - of_mirrored)[inner][..., :2].mean() < 1
    assert mirrored[inner][..., 0].mean() < 110 and flow[inner][..., 0].mean() > 146
    numpy.testing.assert_array_equal(mirror(mirrored[None], 'flow')[0], flow)
    assert (mirrored[..., 2] == 128).all()
    # a byte 0, which only a codec can leave, is no motion to the far right of 256
    assert mirror(numpy.zeros((1, 2, 2, 3), numpy.uint8), 'flow')[0, 0, 0, 0] == 255


def test_augmentation_and_views_of_flow():
    flow = quantise(numpy.full((32, 32, 2), [4.0, -8.0]), 20)
    window = numpy.tile(flow, 4)[None]  # of four moments
    flipped = Augmentation(flip=True, stream='flow')
    seen = {tuple(flipped(window, numpy.random.RandomState(seed))[0, 0, 0]) for seed in range(20)}
    x, y = map(int, flow[0, 0, :2])
    assert seen == {(x, y, 128) * 4, (256 - x, y, 128) * 4}
    # twice as near, twice as far in as many pixels
    zoomed = Augmentation(crop=0.5, stream='flow')(flow[None], numpy.random.RandomState(0))
    numpy.testing.assert_allclose(dequantise(zoomed[0], 20)[0, 0], [8, -16], atol=0.2)
    assert (zoomed[..., 2] == 128).all()
    whole, other, corner = (view(flow[None]) for view in views(10, 'flow')[:3])
    numpy.testing.assert_array_equal(whole[0], flow)
    assert other[0, 0, 0, 0] == 256 - x
    numpy.testing.assert_allclose(dequantise(corner[0], 20)[0, 0], [4 / .875, -8 / .875], atol=.2)
    with pytest.raises(ValueError):
        Augmentation(rotate=3, stream='flow')


def test_colours_of_directions():
    flow = numpy.float32([[[5, 0], [0, 5], [-5, 0], [0, -5], [0, 0], [50, 0]]])
    right, down, left, up, still, far = colours(flow, 5)[0].tolist()
    assert right == far == [255, 0, 0] and still == [255, 255, 255]
    assert left == [0, 255, 255] and down[1] == 255 and up[2] == 255
    legend = wheel(101, 5)
    assert legend[50, 98].tolist()[0] == 255 and legend[50, 98][1] < 20
    assert (legend[50, 50] == 255).all() and (legend[0, 0] == 255).all()
