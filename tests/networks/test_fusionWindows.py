"""The frames of a window: beyond a clip's ends, in training, and those of ten views."""
import numpy
import pytest

import helperFunctions as hf
from engine.learning.frames import FrameIterator, mirrored, with_mirrored_ends
from engine.video.framecounts import frame_counts
from engine.learning.sequences import reverse_append
from engine.video.augmentation import Augmentation, views
from engine.video.decode import Frames, read_frames
from fusionSet import SEEN, clip


def test_a_clip_goes_on_in_reverse_beyond_its_ends():
    assert list(mirrored(range(-4, 9), 5)) == [3, 2, 1, 0, 0, 1, 2, 3, 4, 4, 3, 2, 1]
    assert list(mirrored(range(-7, 9), 3)) == [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2]
    for n in (1, 3, 40):
        numpy.testing.assert_array_equal(mirrored(range(35), n), reverse_append(n, 35)[:35])


@pytest.mark.parametrize('n', [1, 2, 5, 8, 9, 30])
@pytest.mark.parametrize('before, after', [(4, 5), (7, 8), (0, 3), (0, 0)])
def test_mirrored_ends_of_a_clip_that_comes_in_batches(n, before, after):
    frames = clip(n)
    for size in (1, 3, 16, 30):
        batches = iter([frames[i:i + size] for i in range(0, n, size)])
        got = numpy.concatenate(list(with_mirrored_ends(batches, before, after)))
        numpy.testing.assert_array_equal(
            got, frames[mirrored(numpy.arange(-before, n + after), n)])


@pytest.mark.parametrize('n', [1, 2, 3, 8, 30])
@pytest.mark.parametrize('before, after', [(4, 5), (7, 8), (0, 3)])
def test_flow_beyond_the_ends_is_that_of_a_clip_that_runs_back(n, before, after):
    """Against the steps of a walk that turns round at the clip's ends."""
    walk = numpy.random.RandomState(n).randint(-40, 40, n)
    steps = numpy.diff(walk) if n > 1 else numpy.zeros(1, int)
    steps = numpy.append(steps, steps[-1])[:n]  # the last is said twice
    moments = numpy.arange(-before, n + after)
    expected = walk[mirrored(moments + 1, n)] - walk[mirrored(moments, n)]
    expected[before + n - 1] = steps[-1]
    if n == 1:
        expected[:] = 0
    flow = numpy.broadcast_to((128 + steps)[:, None, None, None], (n, 2, 2, 3)).astype(numpy.uint8)
    for size in (1, 3, 30):
        batches = iter([flow[i:i + size] for i in range(0, n, size)])
        got = numpy.concatenate(list(with_mirrored_ends(batches, before, after, 'flow')))
        # In a clip shorter than a window the turns come round, each with its last step.
        again = (moments % (2 * n) == n - 1) & (moments != n - 1)
        numpy.testing.assert_array_equal(got[~again, 0, 0, 0], 128 + expected[~again])
        assert (got[again] == flow[-1]).all() and (got[..., 0] == got[..., 2]).all()


@pytest.fixture
def clips(small_set):
    lists = hf.read_lists(small_set)
    return lists.train, frame_counts(small_set, lists.train, 2)[0]


@pytest.mark.parametrize('offsets', [(0,), SEEN['late'], SEEN['slow']])
def test_training_windows_are_frames_of_the_clip_changed_alike(clips, offsets):
    train, counts = clips
    plain, = FrameIterator(train, counts, len(train), 32, repeat=False, offsets=offsets)
    for window, c in zip(plain[0], train):
        wanted = mirrored(counts[c.name] // 2 + numpy.array(offsets), counts[c.name])
        frames = numpy.concatenate(list(Frames(c.path, 32)))[wanted]
        numpy.testing.assert_array_equal(window, frames if len(offsets) > 1 else frames[0])
    if len(offsets) == 1:
        return
    def first(augment, per_clip=3):
        return FrameIterator(train, counts, 50, 32, 5, per_clip, augment, offsets=offsets).next()
    windows, labels = first(None)
    assert windows.shape == (len(labels), len(offsets), 32, 32, 3)
    flipped = first(Augmentation(flip=True))[0]
    kinds = {(numpy.array_equal(a, b), numpy.array_equal(a, b[..., ::-1, :]))
             for a, b in zip(windows, flipped)}
    assert kinds == {(True, False), (False, True)}
    # A crop that differed between the frames of a window would give other differences.
    cropped = first(Augmentation(crop=0.8, rotate=10, brightness=0.2))[0]
    for a, b in zip(windows, cropped):
        still = numpy.array([numpy.array_equal(frame, a[0]) for frame in a])
        assert [numpy.array_equal(frame, b[0]) for frame in b] == list(still)


def test_hundreds_of_frames_asked_for_at_once(clips):
    """ffmpeg's expressions have a limit, which windows would reach."""
    c = clips[0][0]
    frames = read_frames(c.path, range(8), 32)
    many = numpy.concatenate(list(Frames(c.path, 32, only=range(700))))
    numpy.testing.assert_array_equal(many[:8], frames)


def test_the_ten_views_of_a_frame():
    frames = clip(3)
    frames[:] = numpy.arange(32)[:, None, None] * 6 + numpy.arange(32)[:, None]
    frames[0, 0, 0] = 255
    seen = [view(frames) for view in views(10)]
    assert len(seen) == 10 and all(view.shape == frames.shape for view in seen)
    numpy.testing.assert_array_equal(seen[0], frames)
    for plain, flipped in zip(seen[::2], seen[1::2]):
        numpy.testing.assert_array_equal(plain, flipped[:, :, ::-1])
    # A corner's window is 28 pixels wide: half a pixel of it is 0.4375 of the frame's.
    middles = [view[1].astype(float).mean() for view in seen[2::2]]
    whole = frames[1].astype(float).mean()
    numpy.testing.assert_allclose(sorted(m - whole for m in middles), [-14, -10, 10, 14], atol=0.3)
    assert [view[0, 0, 0, 0] > 100 for view in seen[::2]] == [True, True, False, False, False]
    assert [len(views(n)) for n in (1, 2)] == [1, 2]
