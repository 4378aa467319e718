"""HEVC counted by its packets, and read from the key frame before, against whole decodes."""
import subprocess

import imageio_ffmpeg
import pytest

from engine.video.decode import count_frames, read_chosen
from engine.video.packets import packets_of
from numberedFilm import make_film, number_of
from wholeDecode import check, check_damaged

LEADING = 'open-gop=1:keyint=6:bframes=3:b-adapt=0'


def film(path, parameters, *words, frames=16):
    return make_film(path, frames, codec=(
        '-c:v', 'libx265', '-pix_fmt', 'yuv420p', '-crf', '8', *words, '-x265-params',
        f'log-level=none:pools=1:frame-threads=1:{parameters}'))


@pytest.mark.parametrize('ending, parameters, words', [
    ('mp4', LEADING, ()), ('mkv', 'bframes=0:keyint=5:repeat-headers=1:aud=1:wpp=0', ()),
    ('mov', 'open-gop=0:keyint=7:bframes=4:radl=2:weightb=1', ('-tag:v', 'hvc1')),
    ('mkv', 'temporal-layers=2:keyint=9:ref=4', ('-pix_fmt', 'yuv420p10le'))])
def test_plain_clips_are_read_by_their_packets(tmp_path, monkeypatch, ending, parameters, words):
    path = film(tmp_path / f'a.{ending}', parameters, *words)
    assert len(check(path)) == 16
    monkeypatch.setattr('engine.video.decode.survey', None)
    monkeypatch.setattr('engine.video.decode._from_the_start', None)
    assert count_frames(path) == 16
    got, = read_chosen([(path, [3, 8, 15])], 160)
    assert [number_of(frame) for frame in got] == [3, 8, 15]


@pytest.mark.parametrize('lost, plain', [
    ('not(n)', False), (r'eq(n\,1)', False), (r'eq(n\,6)', True)])
def test_a_lost_picture(tmp_path, lost, plain):
    """Others need it, but for the last, which none does."""
    whole, path = film(tmp_path / 'whole.mkv', LEADING), tmp_path / 'a.mp4'
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-i', whole, '-c', 'copy',
                    '-bsf:v', f'noise=drop={lost}', path], check=True)
    assert packets_of(whole) and bool(packets_of(path)) == plain
    check(path)


def test_several_slices_in_a_picture(tmp_path):
    path = film(tmp_path / 'a.mp4', 'slices=2', '-vf', 'scale=160:192')
    assert packets_of(path) is None
    check(path)


def test_damaged_files_are_counted_as_they_are_decoded(tmp_path):
    assert 2 < check_damaged(film(tmp_path / 'a.mp4', LEADING, frames=12)) < 40
