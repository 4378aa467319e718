"""Counts and frames that were had in a quick way, held against a decode of the whole file."""
import random

import numpy
import pytest

from engine.video.decode import Frames, VideoError, count_frames, read_chosen, survey
from engine.video.packets import packets_of


def changed(path, change):
    """A file of what a function of a bytearray makes of another's bytes."""
    data = bytearray(path.read_bytes())
    target = path.with_name(f'changed {path.name}')
    target.write_bytes(change(data) or data)
    return target


def check(path):
    """Counts and frames are those of a whole decode; returns its frames."""
    try:
        count = survey(path)[0]
    except VideoError:
        with pytest.raises(VideoError):
            count_frames(path)
        return []
    assert count_frames(path) == count
    whole = numpy.concatenate(list(Frames(path, 40)))
    for indices in ([count // 2], [*range(count), count + 5]):
        got = read_chosen([(path, indices)], 40)[0]
        assert (got == whole[numpy.minimum(indices, count - 1)]).all()
    return whole


def damages(data, places, rng):
    """Yields copies of a file that is cut off, longer, or damaged: in what the container tells,
    in headers of pictures, behind them; `places`: {begin: end} of packets."""
    heads = [at for begin in places for at in range(begin, begin + 20)]
    aside = [at for at in range(len(data)) if not any(b <= at < e for b, e in places.items())]
    for number in range(48):
        copy = bytearray(data)
        if number % 8 == 0:
            copy = copy[:rng.randrange(len(copy))] if number else copy + bytes(99)
        elif number % 8 < 6:
            copy[rng.choice((heads, aside)[number % 2])] ^= 1 << rng.randrange(8)
        else:
            begin = rng.choice(list(places))
            for _ in range(5):
                copy[min(begin + 20 + rng.randrange(90), places[begin] - 1)] = rng.randrange(256)
        yield copy


def check_damaged(whole):
    """Counts damaged copies of a file as a whole decode does; returns how many are plain."""
    packets, plain = packets_of(whole), 0
    places = dict(zip(packets.begins.tolist(), packets.ends.tolist()))
    for data in damages(whole.read_bytes(), places, random.Random(whole.name)):
        path = whole.with_name(f'damaged{whole.suffix}')
        path.write_bytes(data)
        if packets_of(path):
            plain += 1
            try:
                assert count_frames(path) == survey(path)[0]
            except VideoError as error:
                pytest.fail(f'counted, but not one frame is decoded: {error}')
    return plain
