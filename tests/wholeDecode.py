"""Counts and frames that were had in a quick way, held against a decode of the whole file."""
import numpy
import pytest

from engine.video.decode import Frames, VideoError, count_frames, read_chosen, survey


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
