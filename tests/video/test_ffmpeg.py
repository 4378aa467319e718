"""ffmpeg opens one file and nothing that it names; how it was ended; short clips and whole ones."""
import signal
import subprocess
import sys
import time

import imageio_ffmpeg
import pytest

import helperFunctions as hf
from engine import variants
from engine.errors import DecoderKilled
from engine.video.framecounts import frame_counts
from engine.video.container import shape_of
from engine.video.decode import Frames, VideoError, survey
from engine.video.ffmpeg import check_alive_to_the_end, command, run, start
from smallSet import REPOSITORY

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def film(path, *words, seconds=2, sound=False):
    tone = ['-f', 'lavfi', '-i', f'sine=d={seconds}'] if sound else []
    subprocess.run([FFMPEG, '-v', 'error', '-y', '-f', 'lavfi', '-i',
                    f'testsrc=s=96x64:d={seconds}', *tone, *map(str, words), path], check=True)
    return path


# ----------------------------------------------------------------- files of strangers

@pytest.fixture(scope='module')
def target(tmp_path_factory):
    """A film that no other file may lead to, in the form that playlists want."""
    return film(tmp_path_factory.mktemp('target') / 'secret.ts', '-c:v', 'mpeg2video')


SCRIPTS = {
    'hls': '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n',
    'concat': "ffconcat version 1.0\nfile '{}'\n",
    'dash': '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT2S" '
            'profiles="urn:mpeg:dash:profile:full:2011"><Period>'
            '<AdaptationSet mimeType="video/mp2t"><Representation id="1" bandwidth="9">'
            '<BaseURL>{}</BaseURL></Representation>'
            '</AdaptationSet></Period></MPD>',
    'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
           'm=video 5004 RTP/AVP 33\n',
    'svg': '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
           'width="64" height="64"><image xlink:href="{}" width="64" height="64"/></svg>'}


@pytest.mark.parametrize('name', SCRIPTS)
@pytest.mark.parametrize('ending', ['mp4', 'm3u8'])
def test_no_file_leads_to_another(name, ending, target, tmp_path):
    path = tmp_path / f'a.{ending}'
    path.write_text(SCRIPTS[name].format(target))
    if name in ('hls', 'concat'):  # or this test shows nothing
        flags = {'hls': ['-extension_picky', '0'], 'concat': ['-safe', '0']}[name]
        naive = subprocess.run([FFMPEG, '-v', 'error', '-f', name, *flags, '-i', path, '-f',
                                'null', '-'], capture_output=True)
        assert naive.returncode == 0, naive.stderr
    for read in (survey, lambda path: list(Frames(path, 32)), shape_of):
        with pytest.raises(VideoError, match='no frame could be read'):
            read(path)


def test_no_address_is_opened(tmp_path):
    for name in ('http://127.0.0.1:9/a.mp4', 'concat:a.ts|b.ts', 'tcp://127.0.0.1:9'):
        with pytest.raises(VideoError, match='No such file'):
            survey(name)


def test_no_ffmpeg_is_started_elsewhere():
    """Who names the program has its rules: this room's file, and what reads no stranger's file."""
    mine = {path.relative_to(REPOSITORY).as_posix()
            for path in (REPOSITORY / 'engine').rglob('*.py')
            if 'imageio_ffmpeg.' in path.read_text()}
    assert mine == {'engine/video/ffmpeg.py', 'engine/drawing/clips.py'}
    assert not [path for path in REPOSITORY.glob('*.py') if 'imageio_ffmpeg.' in path.read_text()]


# -------------------------------------------------------------------------------- ending

@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_who_was_stopped_is_told_from_who_failed(number, tmp_path):
    words = command('-re', '-f', 'lavfi', '-i', 'testsrc=s=64x64', '-f', 'null', '-')
    log = tmp_path / 'log'
    with open(log, 'wb') as f:
        process = start(words, stderr=f, stdin=subprocess.DEVNULL)
        while b'Output #0' not in log.read_bytes():
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(timeout=20)
    with pytest.raises(DecoderKilled):
        check_alive_to_the_end(process.returncode, log.read_bytes(), 'a.mp4')


def test_exit_code_255_alone_is_no_stop(tmp_path):
    # ffmpeg ends so where an operation is not permitted: an .mxf wants sound at 48 kHz
    done = run(command('-f', 'lavfi', '-i', 'testsrc=d=1', '-f', 'lavfi', '-i', 'sine=d=1',
                       '-metadata', 'title=Exiting normally, received signal 15.',
                       tmp_path / 'a.mxf'), 'a.mxf')
    assert done.code == 255


def gone(words, seconds=5):
    """Whether no process has these words in its command line, or has soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if subprocess.run(['pgrep', '-f', words], capture_output=True).returncode:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope='module')
def long_root(tmp_path_factory):
    """A root of two clips that take ffmpeg long."""
    root = tmp_path_factory.mktemp('long')
    part = film(root / 'part.avi', '-c:v', 'mpeg4', '-g', 1, seconds=8)
    for name in ('A/a_g01_c01', 'B/b_g02_c01'):
        path = root / variants.CLIPS / f'{name}.avi'
        path.parent.mkdir(parents=True)
        subprocess.run([FFMPEG, '-v', 'error', '-stream_loop', '400', '-i', part, '-c', 'copy',
                        path], check=True)
    (root / variants.LISTS).mkdir()
    for name, lines in (('classInd', ('1 A', '2 B')), ('trainlist01', ('A/a_g01_c01.avi 1',)),
                        ('testlist01', ('B/b_g02_c01.avi',))):
        (root / variants.LISTS / f'{name}.txt').write_text(''.join(f'{line}\n' for line in lines))
    return root


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_no_ffmpeg_outlives_a_stage(number, long_root):
    process = subprocess.Popen([sys.executable, REPOSITORY / 'checkData.py', '--root', long_root],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    words = f'^{FFMPEG}.*{long_root}'
    while subprocess.run(['pgrep', '-f', words], capture_output=True).returncode:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    begun = time.monotonic()
    assert process.wait(timeout=20) == (-9 if number == signal.SIGKILL else 143)
    assert number == signal.SIGKILL or time.monotonic() - begun < 5
    assert gone(words)


# --------------------------------------------------------------------- short and whole

def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    return path


def whole(folder):
    """Films of which nothing is missing, whatever their headers seem to promise."""
    yield film(folder / 'plain.mp4', '-pix_fmt', 'yuv420p')
    for ending in ('mp4', 'avi', 'mkv', 'mov'):  # sound three times as long
        yield film(folder / f'sound.{ending}', '-f', 'lavfi', '-i', 'sine=d=6', '-map', 0,
                   '-map', 1)
    yield film(folder / 'late.mp4', '-f', 'lavfi', '-i', 'sine=d=6', '-map', 0, '-map', 1, '-vf',
               'setpts=PTS+3/TB')
    (folder / 'a.srt').write_text('1\n00:00:00,000 --> 00:00:09,000\nstill\n')
    yield film(folder / 'subtitles.mkv', '-i', folder / 'a.srt', '-map', 0, '-map', 1, '-c:s',
               'srt')
    yield film(folder / 'varying.webm', '-vf', "select='lt(n,10)+not(mod(n,6))'", '-fps_mode',
               'vfr')
    # where decoding runs ahead of showing, the last packet is not the one that is shown last
    yield film(folder / 'varying.mkv', '-vf', "select='lt(n,20)+not(mod(n,7))'", '-fps_mode',
               'vfr', '-enc_time_base', '1:1000', '-bf', 3)
    yield film(folder / 'low.avi', '-c:a', 'libmp3lame', '-ar', 8000, sound=True)
    yield film(folder / 'low.mkv', '-c:a', 'libmp3lame', '-ar', 8000, sound=True)
    yield film(folder / 'low.mp4', '-c:a', 'aac', '-ar', 8000, sound=True)
    # lengths that are moments; a clock's unit for a rate, with nothing between the frames
    yield film(folder / 'begins.mkv', '-output_ts_offset', 5)
    yield film(folder / 'begins.webm', '-output_ts_offset', 5)
    clock = film(folder / 'clock.mp4', '-video_track_timescale', 600)
    yield film(folder / 'clock.avi', '-i', clock, '-map', '1:v', '-c', 'copy', '-time_base',
               '1/600')


def short(folder):
    for ending, words in (('mp4', ['-movflags', '+faststart']), ('mkv', []), ('webm', []),
                          ('avi', []), ('flv', ['-c:v', 'flv1', '-ar', 44100]),
                          ('mov', ['-c:v', 'mpeg4', '-movflags', '+faststart'])):
        yield cut(film(folder / f'cut.{ending}', '-g', 5, *words, sound=True, seconds=4), 0.5)


def test_whole_is_whole_and_short_is_short_for_every_stage(tmp_path):
    folder = tmp_path / variants.CLIPS
    for name in 'WS':
        (folder / name).mkdir(parents=True)
    kinds = {path: None for path in whole(folder / 'W')}
    kinds.update({path: 'short' for path in short(folder / 'S')})
    (folder / 'W' / 'a.srt').unlink()
    lists = tmp_path / variants.LISTS
    lists.mkdir()
    (lists / 'classInd.txt').write_text('1 S\n2 W\n')
    lines = [f'{path.parent.name}/{path.name}' for path in kinds]
    (lists / 'trainlist01.txt').write_text(''.join(
        f'{line} {"SW".index(line[0]) + 1}\n' for line in lines))
    (lists / 'testlist01.txt').write_text('')
    clips = [hf.Clip(str(path), '', 0, '', path) for path in kinds]
    counts = frame_counts(tmp_path, clips, 2)
    again = frame_counts(tmp_path, clips, 2)
    assert counts == again and not counts.failures
    for path, kind in kinds.items():
        frames = Frames(path, 32)
        given = sum(len(batch) for batch in frames)
        told = counts.remarks.get(str(path))
        assert (told and told.kind) == kind, f'{path}: {told}'
        assert frames.remark == told and given == counts.frames[str(path)]


def test_errors_in_a_film_that_looks_whole_are_named(tmp_path):
    path = film(tmp_path / 'a.avi', '-c:v', 'mpeg4', '-q:v', 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2:len(data) // 2 + 300] = bytes(range(256)) + bytes(44)
    path.write_bytes(data)
    count, remark = survey(path)
    assert count >= 49 and remark.kind == 'damaged' and f'{count} frames, but ' in remark.reason


# ------------------------------------------------------------------------------- shape

def test_pixels_that_are_not_square(tmp_path):
    path = film(tmp_path / 'a.mp4', '-vf', 'setsar=2/1', '-pix_fmt', 'yuv420p')
    assert shape_of(path).aspect == 3 and shape_of(path)[1:4] == (96, 64, 2)
    turned = tmp_path / 'turned.mp4'
    subprocess.run([FFMPEG, '-v', 'error', '-display_rotation', '90', '-i', path, '-c', 'copy',
                    turned], check=True)
    assert shape_of(turned).aspect == pytest.approx(1 / 3)
