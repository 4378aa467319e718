"""The made-up set in the size of UCF-101, and bench/scale.py on a thousandth of it."""
import sys

import numpy
import pytest

import helperFunctions as hf
from engine import variants
from bench import scaleSet
from smallSet import run


def test_lengths_are_those_of_the_real_set():
    lengths = scaleSet.lengths()
    assert (len(lengths), lengths.sum()) == (13320, 2482324)
    assert (lengths.min(), numpy.median(lengths), lengths.max()) == (29, 167, 1776)
    assert (lengths < 120).mean() == pytest.approx(0.28, abs=0.001)
    assert not numpy.array_equal(lengths, scaleSet.lengths(seed=1))
    assert numpy.array_equal(numpy.sort(lengths), numpy.sort(scaleSet.lengths(seed=1)))


def test_a_share_has_as_large_a_share_of_the_frames():
    for share in (0.01, 0.1):
        lengths = scaleSet.lengths(share)
        assert len(lengths) == pytest.approx(13320 * share, abs=1)
        assert lengths.sum() == pytest.approx(2482324 * share, rel=0.01)
        assert numpy.median(lengths) == pytest.approx(167, abs=2)


def test_names_have_the_official_sizes_and_groups_of_one_list():
    train = list(scaleSet._names(*scaleSet.sizes(1)[:1], scaleSet.TRAIN_GROUPS, 101))
    test = list(scaleSet._names(*scaleSet.sizes(1)[1:], scaleSet.TEST_GROUPS, 101))
    assert (len(train), len(test)) == (9537, 3783)
    assert len({name for name, _ in train + test}) == 13320
    assert {label for _, label in train} == {label for _, label in test} == set(range(101))
    groups = [{hf.group_of(name) for name, _ in part} for part in (train, test)]
    assert (len(groups[0]), len(groups[1])) == (18, 7) and not groups[0] & groups[1]


@pytest.fixture(scope='module')
def thousandth(tmp_path_factory):
    root = tmp_path_factory.mktemp('scale')
    return root, run(sys.executable, '-m', 'bench.scale', '--root', root, '--share', 0.001,
                     '--keep', '--stages', 'pack', 'normalise', 'accuracy', 'loading', 'segments')


def test_table_of_a_thousandth(thousandth):
    root, done = thousandth
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in done.stdout.splitlines()
            if line.startswith('| 0.001 |')]
    stages = {row[2]: row for row in rows if len(row) == 9}
    assert list(stages) == ['making the set', 'pack', 'normalise', 'accuracy', 'loading']
    assert {row[1] for row in stages.values()} == {'14'}
    # (1024 + 101) float32 a frame, and the files' headers
    frames = scaleSet.lengths(0.001).sum()
    assert float(stages['pack'][3]) > float(stages['making the set'][3])
    assert float(stages['making the set'][3]) == pytest.approx(frames * 4500 / 1e6, abs=1)
    assert all(float(row[8]) > 20 for row in stages.values())  # no Python is smaller
    assert [row[2] for row in rows if len(row) == 7] == [
        'HDF5', 'HDF5, as rnn.py takes it', '.npy, whole', '.npy, mapped']
    assert len(list((root / 'share0.001' / variants.FEATURES).rglob('*.npy'))) == 14


def test_a_full_disk_is_one_line_and_leaves_the_old_files(thousandth):
    root = thousandth[0] / 'share0.001'
    before = (root / variants.TRAIN_HDF5).read_bytes()
    limit = len(before) // 2
    code = ('import resource, runpy, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); '
            f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); '
            'runpy.run_path("save_hdf5.py", run_name="__main__")')
    done = run(sys.executable, '-c', code, '--root', root)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f'{root / variants.TRAIN_HDF5}: cannot be written: File too large' in done.stderr
    assert (root / variants.TRAIN_HDF5).read_bytes() == before
    assert not list(root.glob('.*.part'))
