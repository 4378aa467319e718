"""Frames counted by their packets, and read from the key frame before, against whole decodes."""
import subprocess
import sys
import tempfile

import imageio_ffmpeg
import numpy
import pytest

from engine.video.framecounts import frame_counts
from engine.video import decode
from engine.video.decode import Frames, count_frames, read_chosen, survey
from engine.video.packets import packets_of
from helperFunctions import Clip
from numberedFilm import make_film, number_of
from wholeDecode import changed, check

XVID = ('-c:v', 'mpeg4', '-vtag', 'XVID', '-g', '7', '-q:v', '2', '-bitexact')
TONE = ('-f', 'lavfi', '-i', 'sine=d=0.8', '-c:a', 'pcm_s16le', '-map', '0', '-map', '1')


def film(path, *words, sound=()):
    return make_film(path, 20, codec=(*sound, *XVID, *words))


def copied(path, target, *words):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-i', path, *words, target],
                   check=True)
    return target


# ------------------------------------------------------------------------- what is plain

@pytest.mark.parametrize('words', [
    (), ('-q:v', '3'), ('-g', '1'), ('-vtag', 'DX50', '-flags', '+qpel'),
    ('-flags', '+ilme+ildct', '-bf', '0'), ('-ps', '300')])
def test_plain_clips_are_read_by_their_packets(tmp_path, monkeypatch, words):
    path = film(tmp_path / 'a.avi', *words, sound=TONE if '-q:v' in words else ())
    assert [number_of(frame) for frame in check(path)] == list(range(20))
    monkeypatch.setattr('engine.video.decode.survey', None)
    monkeypatch.setattr('engine.video.decode._from_the_start', None)
    assert count_frames(path) == 20
    got = read_chosen([(path, [5, 19]), (path, [8])], 160)
    assert [[number_of(frame) for frame in frames] for frames in got] == [[5, 19], [8]]


@pytest.mark.parametrize('ending, words', [
    ('avi', (*XVID, '-bf', '2')), ('avi', (*XVID, '-bf', '3', '-b_strategy', '1')),
    ('mp4', ('-c:v', 'mpeg4', '-bf', '2', '-q:v', '2', '-g', '5')), ('mkv', (*XVID, '-bf', '2')),
    ('mov', ('-c:v', 'mpeg4', '-q:v', '2', '-g', '5')), ('mp4', ('-c:v', 'libxvid', '-bf', '2'))])
def test_b_frames_and_other_containers(tmp_path, monkeypatch, ending, words):
    path = make_film(tmp_path / f'a.{ending}', 20, codec=words)
    count = len(check(path))
    monkeypatch.setattr('engine.video.decode.survey', None)
    monkeypatch.setattr('engine.video.decode._from_the_start', None)
    assert count_frames(path) == count and len(read_chosen([(path, [count - 2])], 40)[0]) == 1


@pytest.mark.parametrize('bit', range(2, 12))
def test_a_b_frame_at_a_wrong_time(tmp_path, bit):
    """A decoder leaves it out, if its time is not between those of its neighbours."""
    path = film(tmp_path / 'a.avi', '-bf', '2')
    check(changed(path, bit_of_picture(path.read_bytes().count(b'\0\0\1\xb6') - 2, bit)))


def test_real_clips_are_plain(real_data):
    for name in ('PushUps/v_PushUps_g01_c01', 'BasketballDunk/v_BasketballDunk_g04_c02'):
        path = real_data / 'UCF-101' / f'{name}.avi'
        packets, count = packets_of(path), survey(path)[0]
        assert len(packets.begins) == count
        whole = numpy.concatenate(list(Frames(path, 40)))
        some = list(range(0, count, 9))
        assert (read_chosen([(path, some)], 40)[0] == whole[some]).all()


# ------------------------------------------------------------------------ what is not

def bit_of_picture(number, bit):
    """Turns a bit of the header of a picture."""
    def change(data):
        at = -1
        for _ in range(number + 1):
            at = data.index(b'\0\0\1\xb6', at + 1)
        data[at + 4 + bit // 8] ^= 128 >> bit % 8
    return change


def packet(number, change):
    """Changes the place where a packet begins; its index tells the same as before."""
    def changing(data):
        at = -1
        for _ in range(number + 1):
            at = data.index(b'00dc', at + 1)
        return change(data, at)
    return changing


def emptied(data, at):
    """An empty packet, a frame that was dropped, with what was there as junk behind it."""
    size = int.from_bytes(data[at + 4:at + 8], 'little')
    junk = data[at:at + 8]
    junk[:4], junk[4:8] = b'JUNK', (size - 8 + size % 2).to_bytes(4, 'little')
    data[at + 4:at + 16] = bytes(4) + junk


ODD = {
    'cut': lambda data: data[:len(data) * 2 // 3],
    'no index': lambda data: data[:data.rindex(b'idx1')],
    'junk behind': lambda data: data + bytes(5000),
    'twice': lambda data: data + data,
    'an index that lies': lambda data: data[:-12] + bytes(12),
    'an empty packet': packet(9, emptied),
    'audio for video': packet(9, lambda data, at: data.__setitem__(slice(at, at + 4), b'01wb')),
    'count of the header': lambda data: data.__setitem__(48, 7),
    'a delay': lambda data: data.__setitem__(data.index(b'strh') + 8 + 28, 9),
    'no picture type': bit_of_picture(0, 0), 'first is no key': bit_of_picture(0, 1),
    'not coded': lambda data: [bit_of_picture(9, bit)(data) for bit in range(3, 12)] and data,
    'scale 0': lambda data: data.replace(b'\0\0\1\xb6\x50', b'\0\0\1\xb6\x51'),
    'another layer': lambda data: data.replace(b'\0\0\1\x20\0', b'\0\0\1\x20\1', 2)}


@pytest.mark.parametrize('name', ODD)
def test_an_odd_clip_is_counted_as_it_is_decoded(tmp_path, name):
    check(changed(film(tmp_path / 'a.avi'), ODD[name]))


@pytest.mark.parametrize('ending, words', [
    ('avi', ('-c:v', 'libxvid', '-bf', '2')), ('mkv', (*XVID, '-bf', '2', '-flags', '+ilme+ildct')),
    ('avi', ('-c:v', 'msmpeg4v2')), ('avi', ('-c:v', 'ffv1')),
    ('avi', (*XVID, '-data_partitioning', '1')), ('webm', ('-c:v', 'libvpx', '-g', '6'))])
def test_other_kinds_are_as_they_are_decoded(tmp_path, ending, words):
    path = make_film(tmp_path / f'a.{ending}', 20, codec=words)
    assert len(check(path)) > 10 and packets_of(path) is None


def test_frames_that_were_dropped(tmp_path):
    slow = copied(film(tmp_path / 'a.avi'), tmp_path / 'b.mkv', '-c', 'copy')
    check(copied(slow, tmp_path / 'b.avi', '-c', 'copy', '-time_base', '1/75'))


def damaged(*numbers):
    """Damages pictures behind their headers."""
    def change(data):
        for number in numbers:
            at = -1
            for _ in range(number + 1):
                at = data.index(b'\0\0\1\xb6', at + 1)
            data[at + 9:at + 14] = b'\x55\xaa\x33\xcc\x0f'
    return change


def test_damage_within_pictures(tmp_path):
    """What is missing in a picture is made up from those before it, so all are decoded."""
    good, bad = film(tmp_path / 'a.avi'), film(tmp_path / 'b.avi', '-g', '5')
    bad = changed(bad, damaged(2, 5, 11))
    check(bad)
    assert packets_of(bad) and survey(bad)[1].kind == 'damaged'
    clips = [(good, [3, 12]), (bad, [1, 7, 13, 19]), (good, [19])]
    for (path, indices), frames in zip(clips, read_chosen(clips, 40)):
        whole = numpy.concatenate(list(Frames(path, 40)))
        assert (frames == whole[indices]).all()


def test_counts_tell_whether_pictures_were_looked_at(tmp_path):
    path = changed(film(tmp_path / 'a.avi'), damaged(0))
    clips = [Clip('a', 'A', 0, 'g01', path)]
    for whole, kind in ((False, None), (True, 'damaged'), (False, 'damaged')):
        counts = frame_counts(tmp_path, clips, 1, whole=whole)
        assert counts.frames == {'a': 20} and not counts.failures
        assert [remark.kind for remark in counts.remarks.values()] == [kind] * bool(kind)


@pytest.mark.skipif(sys.platform != 'linux', reason='needs files without names')
def test_what_is_joined_has_no_name_that_could_be_left(tmp_path, monkeypatch):
    path, start, seen = film(tmp_path / 'a.avi'), decode.start, []
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))

    def starting(words, **options):
        process = start(words, **options)
        seen.append((f'file:{path}' in words, list((tmp_path / 'temporary').iterdir())))
        return process
    monkeypatch.setattr(decode, 'start', starting)
    assert [number_of(frame) for frame in read_chosen([(path, [3, 12])], 40)[0]] == [3, 12]
    film_times = Frames(path, 40, timed=True)
    assert len(numpy.concatenate(list(film_times))) == len(film_times.times) == 20
    assert seen == [(False, []), (True, [])]
