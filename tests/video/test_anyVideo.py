"""What cameras, phones and editors write: rates, clocks, streams, sound; against PyAV and by
construction, since every film here is made of a known number of frames at a known rate."""
import re
import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy
import pytest
from PIL import Image

from engine.video.container import read_header, shape_of
from engine.video.decode import Frames, VideoError, survey
from engine.video.overlay import label_video

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
NTSC = Fraction(30000, 1001)


def ffmpeg(*words):
    subprocess.run([FFMPEG, '-v', 'error', '-y', *map(str, words)], check=True)


def film(path, *words, rate=25, frames=40, sound=True):
    """A test picture that moves, with a tone as long."""
    tone = ['-f', 'lavfi', '-i', f'sine=d={float(frames / rate)}:r=48000'] if sound else []
    ffmpeg('-f', 'lavfi', '-i', f'testsrc=s=96x64:r={rate}:d={float(frames / rate)}', *tone,
           '-pix_fmt', 'yuv420p', *words, path)
    return path


def seen(path, **options):
    """(the Frames of a video read to its end, its frames)."""
    frames = Frames(path, (96, 64), timed=True, **options)
    return frames, numpy.concatenate(list(frames))


def by_pyav(path, number=None):
    """(frames, moments) of a video stream, as PyAV decodes it: (n, 64, 96, 3) uint8 BGR."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0] if number is None else file.streams[number]
        frames = [frame for frame in file.decode(stream)]
        begin = (file.start_time or 0) / 1e6
        return (numpy.stack([frame.to_ndarray(format='bgr24') for frame in frames]),
                [None if frame.time is None else frame.time - begin for frame in frames])


def sound_of(path, number=0):
    """(seconds, loudest sample) of a sound track."""
    done = subprocess.run([FFMPEG, '-v', 'error', '-i', path, '-map', f'0:a:{number}', '-ac', '1',
                           '-ar', '8000', '-f', 'f32le', '-'], capture_output=True, check=True)
    heard = numpy.frombuffer(done.stdout, numpy.float32)
    return len(heard) / 8000, float(abs(heard).max())


def labelled(path, tmp_path):
    """The copy of a video with a panel that is red, and from half a second on green."""
    target = tmp_path / 'copy.mp4'
    told = label_video(path, target, [(0.0, Image.new('RGBA', (30, 12), 'red')),
                                      (0.5, Image.new('RGBA', (30, 12), (0, 200, 0, 255)))])
    return target, told


# --------------------------------------------------------------------------------- time

KINDS = [  # ending, frames a second, words for ffmpeg
    ('avi', 30, '-c:v libx264 -bf 2 -c:a libmp3lame'), ('avi', 15, '-c:v libx264 -bf 3 -an'),
    ('avi', NTSC, '-c:v mpeg4 -bf 2 -c:a pcm_s16le'), ('avi', 12, '-c:v mpeg4 -bf 0 -an'),
    ('avi', 60, '-c:v mjpeg -pix_fmt yuvj420p -an'),
    ('mpg', NTSC, '-c:v mpeg2video -bf 2'), ('vob', 25, '-c:v mpeg2video -bf 2'),
    ('mpeg', 24, '-c:v mpeg1video -bf 2'), ('ts', 50, '-c:v libx264 -bf 3 -c:a aac'),
    ('m2ts', 15, '-c:v libx264 -c:a ac3'), ('mp4', 12, '-c:v libx264 -c:a aac'),
    ('mov', 60, '-c:v mpeg4 -c:a aac'), ('mkv', NTSC, '-c:v libx264 -c:a libopus'),
    ('webm', 15, '-c:v libvpx -c:a libvorbis'), ('flv', 30, '-c:v flv1 -ar 44100'),
    ('wmv', 24, '-c:v wmv2'), ('ogv', 24, '-c:v libtheora -c:a libvorbis'),
    ('rm', 30, '-c:v rv20 -c:a ac3'), ('mxf', 25, '-c:v mpeg2video -c:a pcm_s16le'),
    ('nut', 10, '-c:v ffv1'), ('3gp', 15, '-c:v h263 -s 176x144 -an'),
    ('h264', 30, '-an'), ('m2v', NTSC, '-c:v mpeg2video -an'), ('m4v', 15, '-c:v mpeg4 -an')]


@pytest.mark.parametrize('ending, rate, words', KINDS,
                         ids=[f'{ending} {float(rate):.4g}' for ending, rate, _ in KINDS])
def test_every_frame_has_its_moment_and_the_copy_too(ending, rate, words, tmp_path):
    path = film(tmp_path / f'a.{ending}', *words.split(), rate=rate)
    frames, pictures = seen(path)
    theirs, moments = by_pyav(path)
    assert len(pictures) == len(theirs) == 40 and survey(path) == (40, None)
    assert read_header(path)[1] in (0, pytest.approx(float(rate), rel=1e-3))
    if theirs.shape == pictures.shape:
        assert abs(pictures.astype(int) - theirs).mean() < 2
    # one after the other at the film's rate, to a millisecond, in which some containers count
    times = numpy.array(frames.times)
    numpy.testing.assert_allclose(times - times[0], numpy.arange(40) / float(rate), atol=0.0011)
    assert times[0] < 0.25
    if None not in moments and ending not in ('avi', 'm2v', 'm4v'):  # those have no clock
        numpy.testing.assert_allclose(times, sorted(moments), atol=0.002)
    copy, told = labelled(path, tmp_path)
    assert not told
    copied, shown = seen(copy)
    assert len(shown) == 40
    numpy.testing.assert_allclose(numpy.array(copied.times) - copied.times[0], times - times[0],
                                  atol=0.0011)
    # each panel in its time, at the lower left
    green = shown[:, -8, 10, 1].astype(int) > shown[:, -8, 10, 2]
    assert green.tolist() == [moment >= 0.4995 for moment in times]
    with av.open(str(path)) as source, av.open(str(copy)) as target:
        assert len(target.streams.audio) == len(source.streams.audio)


def test_a_header_promises_the_length_of_the_film_itself(tmp_path):
    path = film(tmp_path / 'a.mkv', '-af', 'apad=whole_dur=9', rate=10)
    assert read_header(path) == (40, 10)


def test_the_unit_of_a_clock_is_no_rate(tmp_path):
    path = film(tmp_path / 'a.dv', '-c:v', 'dvvideo', '-s', '720x576', '-ac', 2, frames=10)
    assert read_header(path) == survey(path)[:1] + (25,) == (10, 25)


def test_one_stamp_that_is_missing_does_not_decide(tmp_path):
    """The clock of a film at 50 frames a second of which one packet has lost its stamp."""
    whole = film(tmp_path / 'whole.ts', '-c:v', 'libx264', '-bf', 0, rate=50, sound=False)
    data, n = bytearray(whole.read_bytes()), 0
    for at in range(0, len(data), 188):
        start = data.find(b'\0\0\1\xe0', at, at + 40)
        if start > 0 and data[start + 7] >> 6 >= 2:  # a PES header with a PTS
            n += 1
            if n == 10:
                size = data[start + 8]
                data[start + 7] &= 0x3f
                data[start + 9:start + 9 + size] = b'\xff' * size
    path = tmp_path / 'one.ts'
    path.write_bytes(data)
    frames, _ = seen(path)
    numpy.testing.assert_allclose(frames.times, numpy.arange(40) / 50, atol=0.001)


def test_steps_and_rates_that_vary(tmp_path):
    path = film(tmp_path / 'a.mkv', '-vf', "select='lt(n,20)+not(mod(n,7))'", '-fps_mode', 'vfr',
                '-enc_time_base', '1:1000', rate=30)
    _, moments = by_pyav(path)
    frames, _ = seen(path, step=3)
    numpy.testing.assert_allclose(frames.times, moments[::3], atol=0.001)


# ------------------------------------------------------------------------------ streams

def cover(tmp_path):
    Image.new('RGB', (200, 200), 'blue').save(tmp_path / 'cover.png')
    return tmp_path / 'cover.png'


@pytest.mark.parametrize('ending, first', [('mp4', True), ('mp4', False), ('mkv', True),
                                           ('mkv', False), ('mov', True)])
def test_a_cover_is_never_the_film(ending, first, tmp_path):
    plain = film(tmp_path / f'plain.{ending}', '-c:a', 'aac')
    path, order = tmp_path / f'a.{ending}', (1, 0) if first else (0, 1)
    inputs = ['-i', plain, '-i', cover(tmp_path)]
    marks = ['-map', '0:a', '-c', 'copy', f'-disposition:v:{order.index(1)}', 'attached_pic']
    ffmpeg(*inputs, *(word for number in order for word in ('-map', f'{number}:v')), *marks, path)
    frames, pictures = seen(path)
    assert len(pictures) == 40 and survey(path)[0] == 40
    numpy.testing.assert_array_equal(pictures, seen(plain)[1])
    assert shape_of(path)[1:3] == (96, 64)


@pytest.mark.parametrize('ending', ['mkv', 'nut'])
def test_of_several_tracks_the_default_one(ending, tmp_path):
    small = film(tmp_path / 'small.mkv', rate=10)
    large = tmp_path / 'large.mkv'
    ffmpeg('-f', 'lavfi', '-i', 'testsrc2=s=192x128:r=20:d=1', large)
    path = tmp_path / f'a.{ending}'
    ffmpeg('-i', large, '-i', small, '-map', '0:v', '-map', '1:v', '-map', '1:a', '-c', 'copy',
           '-disposition:v:0', 0, '-disposition:v:1', 'default', path)
    assert shape_of(path)[:3] == ('0:1', 96, 64)
    frames, pictures = seen(path)
    numpy.testing.assert_array_equal(pictures, seen(small)[1])
    assert survey(path) == (40, None) and read_header(path)[1] == 10
    copy, _ = labelled(path, tmp_path)
    numpy.testing.assert_allclose(seen(copy)[0].times, numpy.arange(40) / 10, atol=0.004)


@pytest.mark.parametrize('name, words', [('a.mp3', ''), ('a.m4a', ''), ('a.ogg', ''),
                                         ('a.wav', ''), ('covered.m4a', 'cover')])
def test_sound_alone_holds_no_video(name, words, tmp_path):
    path = tmp_path / name
    more = ['-i', cover(tmp_path), '-map', 0, '-map', 1, '-c:v', 'png', '-disposition:v',
            'attached_pic'] if words else []
    ffmpeg('-f', 'lavfi', '-i', 'sine=d=1', *more, path)
    for read in (seen, survey, shape_of):
        with pytest.raises(VideoError, match='holds no video'):
            read(path)


# -------------------------------------------------------------------------------- sound

@pytest.mark.parametrize('name, words', [
    ('11025.flv', '-c:v flv1 -c:a libmp3lame -ar 11025'),
    ('8000.avi', '-c:a libmp3lame -ar 8000'), ('22050.avi', '-c:a libmp3lame -ar 22050'),
    ('sixteen.mkv', '-c:a pcm_s16le -ac 16'), ('sixteen.wv.mkv', '-c:a flac -ac 8'),
    ('odd.mkv', '-c:a pcm_s16le -ar 12345'), ('float.mkv', '-c:a pcm_f64le -ar 96000'),
    ('vorbis.webm', '-c:v libvpx -c:a libvorbis'), ('two.mkv', '-map 0 -map 1 -map 1 -c:a ac3')])
def test_odd_sound_is_in_the_copy(name, words, tmp_path):
    path = film(tmp_path / name, *words.split())
    copy, told = labelled(path, tmp_path)
    assert not told
    with av.open(str(path)) as source:
        tracks = len(source.streams.audio)
    sounds = [sound_of(copy, number) for number in range(tracks)]
    assert tracks and all(seconds > 1.4 and loudest > 0.05 for seconds, loudest in sounds)


def test_sound_that_nothing_can_read_is_left_out_with_its_reason(tmp_path):
    path = film(tmp_path / 'a.mkv', '-map', 0, '-map', 1, '-map', 1, '-c:a', 'ac3')
    data = path.read_bytes()
    path.write_bytes(data.replace(b'A_AC3', b'A_XYZ', 1))
    copy, told = labelled(path, tmp_path)
    assert len(told) == 1 and told[0].startswith(f'{path}: the copy is without sound track 1')
    with av.open(str(copy)) as target:
        assert len(target.streams.audio) == 1 and len(target.streams.video) == 1


@pytest.mark.parametrize('mark, spoil', [
    (b'\5vorbis', lambda header: header[:7] + bytes(200) + header[207:]),
    (b'\1vorbis', lambda header: header[:11] + b'\0' + header[12:]),
    (b'\1vorbis', lambda header: b'\t' + header[1:])])
def test_broken_vorbis_costs_nothing_but_itself(mark, spoil, tmp_path):
    """The sound is longer than the film, and its headers are damaged: the film is whole."""
    path = film(tmp_path / 'a.webm', '-af', 'apad=whole_dur=5', '-c:v', 'libvpx', '-c:a',
                'libvorbis')
    data = path.read_bytes()
    at = data.index(mark)
    path.write_bytes(data[:at] + spoil(data[at:]))
    assert survey(path) == (40, None)
    copy, told = labelled(path, tmp_path)
    assert len(told) == 1 and 'the copy is without sound track 1, vorbis' in told[0]
    assert len(seen(copy)[1]) == 40


def test_damaged_aac_in_a_transport_stream(tmp_path):
    whole = film(tmp_path / 'whole.ts', '-c:a', 'aac', frames=75)
    data = bytearray(whole.read_bytes())
    for at in range(100 * 188, len(data), 188):  # every fifth packet of sound is lost
        if int.from_bytes(data[at + 1:at + 3], 'big') & 0x1fff == 0x101 and at // 188 % 5 == 0:
            data[at + 4:at + 188] = b'\xff' * 184
    path = tmp_path / 'a.ts'
    path.write_bytes(data)
    copy, _ = labelled(path, tmp_path)
    left = sound_of(path)[0]
    assert 0.2 < left < 2 and sound_of(copy)[0] == pytest.approx(left, abs=0.1)
    assert len(seen(copy)[1]) == len(seen(path)[1])


SYNC = [('avi', 30, '-c:v libx264 -bf 2 -c:a libmp3lame'), ('avi', 15, '-c:v mpeg4 -c:a pcm_s16le'),
        ('mpg', NTSC, '-c:v mpeg2video -bf 2 -c:a mp2'), ('ts', 50, '-c:v libx264 -bf 3 -c:a aac'),
        ('mkv', 12, '-c:v libx264 -c:a pcm_s16le'), ('flv', 24, '-c:v flv1 -ar 44100'),
        ('wmv', 30, '-c:v wmv2 -c:a wmav2')]

LUMA = 'lavfi.signalstats.YAVG'  # mean of a frame


@pytest.mark.parametrize('ending, rate, words', SYNC,
                         ids=[f'{ending} {float(rate):.4g}' for ending, rate, _ in SYNC])
def test_flash_and_beep_stay_together(ending, rate, words, tmp_path):
    """A film that is black and silent, and white with a tone from 1 s on, and its copy."""
    path = tmp_path / f'a.{ending}'
    ffmpeg('-f', 'lavfi', '-i', f"color=black:s=96x64:r={rate}:d=2,"
           "drawbox=c=white:t=fill:enable='gte(t,1)'", '-f', 'lavfi', '-i',
           "aevalsrc='0.5*sin(4000*t)*gte(t,1)':d=2:s=48000", '-pix_fmt', 'yuv420p',
           *words.split(), path)

    def apart(path):
        # Onto a stream of its own: into a log two threads write, each into the other's lines.
        done = subprocess.run([FFMPEG, '-v', 'error', '-i', path, '-map', '0:v', '-map', '0:a',
                               '-vf', 'signalstats,metadata=print:file=-:key=' + LUMA, '-af',
                               'aresample=8000:async=1:first_pts=0', '-ac', '1', '-f', 'null',
                               '-fps_mode', 'passthrough', '-'], capture_output=True,
                              text=True, check=True)
        flash = next(float(seconds) for seconds, luma in
                     re.findall(rf'pts_time:(\S+)\s+{LUMA}=(\S+)', done.stdout)
                     if float(luma) > 120)
        sound = subprocess.run([FFMPEG, '-v', 'error', '-i', path, '-af',
                                'aresample=8000:async=1:first_pts=0', '-map', '0:a', '-ac', '1',
                                '-f', 'f32le', '-'], capture_output=True, check=True)
        loud = abs(numpy.frombuffer(sound.stdout, numpy.float32)) > 0.1
        return flash - loud.argmax() / 8000
    copy, _ = labelled(path, tmp_path)
    assert abs(apart(copy) - apart(path)) < 0.03
