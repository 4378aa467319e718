"""Stage 2 on real clips: with the fast convolutions and with Chainer's own, the same answers."""
import numpy
import pytest

import smallSet
import helperFunctions as hf
from engine import variants


@pytest.fixture
def real_root(real_data, tmp_path):
    """A root with one short real clip of each class and a narrow random VGG_1024.model."""
    train, test, classes = [], [], []
    for label, folder in enumerate(sorted((real_data / variants.CLIPS).iterdir()), 1):
        classes.append(f'{label} {folder.name}\n')
        clips = sorted(folder.glob('*.avi'), key=lambda path: path.stat().st_size)
        there = tmp_path / variants.CLIPS / folder.name
        there.mkdir(parents=True)
        groups = set()
        for clip in clips:
            group = clip.stem.split('_')[2]
            if group not in groups and len(groups) < 3:
                groups.add(group)
                (there / clip.name).symlink_to(clip)
                kind, end = (test, '') if len(groups) == 1 else (train, f' {label}')
                kind.append(f'{folder.name}/{clip.name}{end}\n')
    (tmp_path / variants.LISTS).mkdir()
    for name, lines in (('classInd', classes), ('trainlist01', train), ('testlist01', test)):
        (tmp_path / variants.LISTS / f'{name}.txt').write_text(''.join(lines))
    smallSet.save_random_model(tmp_path)
    return tmp_path


def test_fast_or_not_the_predictions_are_the_same(real_root, tmp_path):
    roots = [smallSet.copy_set(real_root, tmp_path / name) for name in ('fast', 'slow')]
    for root, flags in zip(roots, ((), ('--no-fast',))):
        done = smallSet.run_stage('saveFeatures_1024.py', 1, '--parts', 1, '--step', 4, *flags,
                              '--root', root)
        assert done.returncode == 0, done.stdout + done.stderr
    lists = hf.read_lists(real_root)
    for clip in lists.train + lists.test:
        for folder, tolerance in ((variants.FEATURES, 1e-4), (variants.FRAME_PREDICTIONS, 1e-5)):
            ours, chainers = (numpy.load(variants.output_path(root, folder, clip))
                              for root in roots)
            assert not numpy.array_equal(ours, chainers)  # two ways were gone
            assert abs(ours - chainers).max() <= tolerance * abs(chainers).max()
        assert numpy.array_equal(ours.argmax(axis=1), chainers.argmax(axis=1))
