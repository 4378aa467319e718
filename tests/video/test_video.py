"""Decoding against clips whose every frame is known, and against a second decode."""
import subprocess

import imageio_ffmpeg
import numpy
import pytest

from engine.video.decode import Frames, VideoError, count_frames, read_frames


def write_clip(path, frames, fps=25, **options):
    """frames (n, H, W, 3) uint8 RGB -> a video, lossless by default."""
    n, height, width, _ = frames.shape
    options = {'codec': 'ffv1', 'pix_fmt_out': 'bgr0', 'macro_block_size': 1, **options}
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, **options)
    writer.send(None)
    for frame in frames:
        writer.send(numpy.ascontiguousarray(frame))
    writer.close()
    return path


@pytest.fixture
def counted(tmp_path):
    """50 frames; frame i is a flat (5 i, 100, 200) in RGB."""
    frames = numpy.empty((50, 64, 64, 3), numpy.uint8)
    frames[...] = [0, 100, 200]
    frames[..., 0] = 5 * numpy.arange(50)[:, None, None]
    return write_clip(tmp_path / 'counted.avi', frames)


def test_every_frame_once_in_order_and_in_bgr(counted):
    reader = Frames(counted, size=32, batch=16)
    batches = list(reader)
    assert [len(b) for b in batches] == [16, 16, 16, 2] and reader.count == 50
    frames = numpy.concatenate(batches)
    assert frames.shape == (50, 32, 32, 3) and frames.dtype == numpy.uint8
    numpy.testing.assert_array_equal(frames[:, 7, 9], [[200, 100, 5 * i] for i in range(50)])
    assert reader.remark is None and reader.complaint is None


def test_step_takes_every_nth(counted):
    frames = numpy.concatenate(list(Frames(counted, size=32, step=7)))
    assert list(frames[:, 0, 0, 2]) == [5 * i for i in range(0, 50, 7)]


def test_chosen_frames_are_those_of_the_whole_decode(counted):
    got = read_frames(counted, [3, 3, 49, 10], size=32)
    assert list(got[:, 0, 0, 2]) == [15, 15, 245, 50]
    # past the end: the last one
    assert list(read_frames(counted, [48, 60], size=32)[:, 0, 0, 2]) == [240, 245]


def test_count(counted):
    assert count_frames(counted) == 50


def test_scaling_keeps_a_half_and_half_picture(tmp_path):
    frames = numpy.zeros((3, 240, 320, 3), numpy.uint8)
    frames[:, :, 160:] = 250
    got = next(iter(Frames(write_clip(tmp_path / 'half.avi', frames), size=224)))[0]
    assert (got[:, :108] == 0).all() and (got[:, 116:] == 250).all()


def test_a_changing_frame_size_still_gives_square_frames(tmp_path):
    parts = []
    for name, size in (('a', 64), ('b', 96)):
        frames = numpy.full((5, size, size, 3), 77, numpy.uint8)
        # raw H.264 may change its size midway
        parts.append(write_clip(tmp_path / f'{name}.h264', frames, codec='libx264',
                                pix_fmt_out='yuv420p'))
    both = tmp_path / 'both.h264'
    both.write_bytes(b''.join(p.read_bytes() for p in parts))
    frames = numpy.concatenate(list(Frames(both, size=32)))
    assert frames.shape == (10, 32, 32, 3)


@pytest.mark.parametrize('content', [b'', b'not a video\n' * 100, b'RIFF\x10\0\0\0AVI '])
def test_what_is_no_video_is_named_with_a_reason(tmp_path, content):
    path = tmp_path / 'bad [1].avi'
    path.write_bytes(content)
    for read in (count_frames, lambda p: list(Frames(p)), lambda p: read_frames(p, [0])):
        with pytest.raises(VideoError) as error:
            read(path)
        assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_a_cut_off_clip_gives_its_first_frames_and_tells(tmp_path):
    noise = numpy.random.RandomState(0).randint(256, size=(60, 64, 64, 3)).astype(numpy.uint8)
    whole = write_clip(tmp_path / 'whole.avi', noise)
    cut = tmp_path / 'cut.avi'
    cut.write_bytes(whole.read_bytes()[:whole.stat().st_size // 2])
    reader = Frames(cut, size=32)
    got = sum(len(batch) for batch in reader)
    assert 10 < got < 40 and reader.remark.kind == 'short'
    assert reader.remark.reason.startswith(f'{got} of 60 frames')


def test_real_clip_against_imageio_ffmpegs_own_reader(real_data):
    path = real_data / 'UCF-101' / 'PushUps' / 'v_PushUps_g01_c01.avi'
    theirs = imageio_ffmpeg.read_frames(str(path), pix_fmt='bgr24')
    size = next(theirs)['size']
    theirs = numpy.stack([numpy.frombuffer(f, numpy.uint8).reshape(size[1], size[0], 3)
                          for f in theirs])
    ours = numpy.concatenate(list(Frames(path)))
    assert len(ours) == len(theirs) == count_frames(path)
    # another scaling of our own: means over large blocks must agree
    blocks = theirs.reshape(len(theirs), 6, 40, 8, 40, 3).mean(axis=(2, 4))
    mine = numpy.stack([[[f[round(y * 224 / 6):round((y + 1) * 224 / 6),
                            28 * x:28 * (x + 1)].mean(axis=(0, 1)) for x in range(8)]
                         for y in range(6)] for f in ours[:5].astype(float)])
    assert abs(mine - blocks[:5]).max() < 6


def test_an_early_end_of_reading_ends_ffmpeg(counted):
    frames = iter(Frames(counted, batch=4, size=32))
    next(frames)
    frames.close()
    assert subprocess.run(['pgrep', '-f', str(counted)], capture_output=True).returncode
