"""H.264 in .mp4, .mov and .mkv counted and read by its packets, against whole decodes."""
import subprocess

import imageio_ffmpeg
import pytest

from engine.video import decode
from engine.video.decode import count_frames, read_chosen
from engine.video.packets import packets_of
from numberedFilm import make_film, number_of
from wholeDecode import changed, check, check_damaged

X264 = ('-c:v', 'libx264', '-pix_fmt', 'yuv420p', '-crf', '12', '-x264-params')
PYRAMID = 'bframes=5:b-adapt=0:b-pyramid=normal:keyint=9:ref=5'
TONE = ('-f', 'lavfi', '-i', 'sine=d=0.8')


def film(path, parameters=PYRAMID, *words, frames=24, sound=()):
    return make_film(path, frames, codec=(*sound, *X264, parameters, *words))


def ffmpeg(*words):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-y', *map(str, words)],
                   check=True)
    return words[-1]


@pytest.mark.parametrize('ending, parameters, words', [
    ('mp4', PYRAMID, TONE), ('mkv', PYRAMID, TONE), ('mov', PYRAMID, TONE),
    ('mp4', 'open-gop=1:keyint=8:bframes=3', ()), ('mkv', 'slices=3:aud=1:repeat-headers=1', ()),
    ('mp4', 'keyint=1', ()), ('mp4', PYRAMID, ('-movflags', 'negative_cts_offsets')),
    ('mkv', 'weightp=2:weightb=1:bframes=3:ref=4:keyint=7', ()),
    ('mp4', 'cabac=0:no-deblock=1:bframes=0:keyint=5', ()), ('mkv', 'bframes=2:qp=51', ()),
    ('mp4', 'intra-refresh=1:keyint=6:bframes=0:nal-hrd=vbr:vbv-maxrate=900:vbv-bufsize=900', ()),
    ('3gp', 'keyint=8', ('-pix_fmt', 'yuv420p10le')), ('mov', 'keyint=8', ('-coder', '0'))])
def test_plain_clips_are_read_by_their_packets(tmp_path, monkeypatch, ending, parameters, words):
    sound = words if words is TONE else ()
    path = film(tmp_path / f'a.{ending}', parameters, *(() if sound else words), sound=sound)
    assert len(check(path)) == 24
    monkeypatch.setattr('engine.video.decode.survey', None)
    monkeypatch.setattr('engine.video.decode._from_the_start', None)
    assert count_frames(path) == 24
    got = read_chosen([(path, [5, 19]), (path, [8, 23])], 160)
    if 'qp=51' not in parameters:
        assert [[number_of(frame) for frame in frames] for frames in got] == [[5, 19], [8, 23]]


def test_clips_of_one_kind_share_a_decoder(tmp_path, monkeypatch):
    """Alike are two of one encoder, whatever their rates of bits; not one that is turned."""
    paths = [film(tmp_path / f'{name}.mp4', frames=frames) for name, frames in
             (('a', 24), ('b', 15))]
    paths.append(ffmpeg('-display_rotation', 180, '-i', paths[0], '-c', 'copy', tmp_path / 'c.mp4'))
    kinds = [packets_of(path).kind for path in paths]
    assert kinds[0] == kinds[1] != kinds[2]
    for path in paths:
        check(path)
    monkeypatch.setattr('engine.video.decode._from_the_start', None)
    got = read_chosen([(paths[0], [3, 20]), (paths[1], [14]), (paths[2], [7])], 160)
    assert [number_of(frame) for frame in (*got[0], *got[1])] == [3, 20, 14]
    assert number_of(got[2][0][::-1, ::-1]) == 7


def test_no_more_clips_are_held_than_memory_is_for(tmp_path, monkeypatch):
    path, held = film(tmp_path / 'a.mp4'), []
    whole = decode._from_key_frames
    monkeypatch.setattr(decode, 'MOST_BYTES', 2 * path.stat().st_size)
    monkeypatch.setattr(decode, '_from_key_frames',
                        lambda clips, size: held.append(len(clips)) or whole(clips, size))
    got = read_chosen([(path, [number]) for number in range(7)], 160)
    assert [number_of(frame) for frame, in got] == [*range(7)] and held == [3, 3, 1]


# ------------------------------------------------------------------------- what is not plain

COPIES = {  # what is made of a plain film without encoding it anew, and its ending
    'fragments': ('mp4', '-movflags', 'frag_keyframe+empty_moov'),
    'no key frame first': ('mkv', '-bsf:v', 'noise=drop=not(n)'),
    'a key frame lost': ('mp4', '-bsf:v', r'noise=drop=eq(n\,9)'),
    'a reference lost': ('mp4', '-bsf:v', r'noise=drop=eq(n\,1)'),
    'a size not told': ('mkv', '-live', '1'), 'mpeg': ('ts',), 'flash': ('flv',)}


@pytest.mark.parametrize('name', COPIES)
def test_other_files_are_as_they_are_decoded(tmp_path, name):
    ending, *words = COPIES[name]
    path = ffmpeg('-i', film(tmp_path / 'whole.mp4'), '-c', 'copy', *words,
                  tmp_path / f'a.{ending}')
    assert packets_of(path) is None
    check(path)


@pytest.mark.parametrize('ending', ['mp4', 'mkv'])
def test_a_part_of_a_film(tmp_path, ending):
    """What comes before the part, from the key frame on, is there to be decoded: an edit list
    hides it in .mp4."""
    path = ffmpeg('-ss', '0.5', '-i', film(tmp_path / f'whole.{ending}', frames=30), '-c', 'copy',
                  tmp_path / f'a.{ending}')
    assert (packets_of(path) is None) == (ending == 'mp4')
    check(path)


@pytest.mark.parametrize('words', [
    ('-flags', '+ilme+ildct'), ('-pix_fmt', 'yuv444p'), ('-x264-params', 'cqm=jvt')])
def test_other_kinds_are_as_they_are_decoded(tmp_path, words):
    path = film(tmp_path / 'a.mkv', 'keyint=8:tff=1' if '-flags' in words else 'keyint=8', *words)
    assert packets_of(path) is None
    check(path)


@pytest.mark.parametrize('ending', ['mp4', 'mkv'])
def test_two_films_or_a_cover_in_a_file(tmp_path, ending):
    one, path = film(tmp_path / 'one.mkv'), tmp_path / f'a.{ending}'
    two = ffmpeg('-i', one, '-i', film(tmp_path / 'two.mkv', frames=9), '-map', 0, '-map', 1, '-c',
                 'copy', path)
    assert packets_of(two) is None
    check(two)
    ffmpeg('-f', 'lavfi', '-i', 'color=blue:s=64x64', '-frames:v', 1, tmp_path / 'cover.png')
    ffmpeg('-i', one, '-i', tmp_path / 'cover.png', '-map', 0, '-map', 1, '-c', 'copy',
           '-disposition:v:1', 'attached_pic', path)
    check(path)


def test_promises_that_are_not_kept(tmp_path):
    """A film whose header tells of more is short, which only a decode of it says."""
    whole = film(tmp_path / 'a.mp4')

    def longer(data):
        at = data.index(b'mvhd') + 20
        data[at:at + 4] = (4 * int.from_bytes(data[at:at + 4], 'big')).to_bytes(4, 'big')
    path = changed(whole, longer)
    assert packets_of(whole) and packets_of(path) is None
    check(path)


@pytest.mark.parametrize('ending', ['mp4', 'mkv'])
def test_damaged_files_are_counted_as_they_are_decoded(tmp_path, ending):
    assert 2 < check_damaged(film(tmp_path / f'a.{ending}', frames=14)) < 40
