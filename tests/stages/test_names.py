"""Clips of all sorts of names go through packing, statistics and the RNN's reading alike."""
import json
import sys

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy
import pytest

import helperFunctions as hf
import normalizeData
import save_hdf5
from engine import files, hdf5, variants
from engine.learning import statistics
from engine.learning.sequences import FeatureStore
from engine.weights.card import weights_digest
from smallSet import N_FEATURES, save_random_model

NAMES = ('_MG_0001', '_statistics', '_held_out', '_missing', '_about', '__init__', '-', '~',
         'a.b.c', 'é ü', '中文', "it's", '"quoted"', '100% [x] $HOME #1; &',
         'back\\slash', 'set', 'card',
         'line\u2028end\x20', 'x' * 250)


@pytest.fixture
def root(tmp_path):
    """A root whose clips have those names, with .npy files of chance and no video."""
    folder = tmp_path / variants.LISTS
    folder.mkdir()
    (folder / 'classInd.txt').write_text('1 A\n2 _B\n')
    for kind, side in (('train', 'g1'), ('test', 'g2')):
        lines = [f'{"A" if i % 2 else "_B"}/{name if kind == "train" else "_" + name[:249]}.mp4'
                 + f' {1 if i % 2 else 2}' * (kind == 'train') for i, name in enumerate(NAMES)]
        (folder / f'{kind}list01.txt').write_text('\n'.join(lines), encoding='utf-8')
    save_random_model(tmp_path)
    random, lists = numpy.random.RandomState(0), hf.read_lists(tmp_path)
    for clip in lists.train + lists.test:
        files.save_npy(variants.output_path(tmp_path, variants.FEATURES, clip),
                       random.rand(4, N_FEATURES).astype('f4'))
        files.save_npy(variants.output_path(tmp_path, variants.FRAME_PREDICTIONS, clip),
                       numpy.full((4, 2), 0.5, 'f4'))
    files.write_text(tmp_path / variants.FEATURES / 'extraction.json', json.dumps(
        {'model_sha256': weights_digest(tmp_path / variants.FRAME_MODEL), 'step': 1}))
    return tmp_path


def test_any_name_is_packed_averaged_and_read(root, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['save_hdf5.py', '--root', str(root)])
    assert save_hdf5.main() == 0
    normalizeData.main()
    lists = hf.read_lists(root)
    assert [clip.name for clip in lists.train] == list(NAMES)
    with hdf5.open_hdf5(root / variants.TRAIN_HDF5, '') as f:
        assert hdf5.clip_names(f) == sorted(NAMES)
        store = FeatureStore(f, lists.train)
        assert store.clips == lists.train
        held_out = set(hdf5.read_names(f, 'held_out'))
        assert held_out == {clip.name for clip in hf.hold_out_groups(lists.train)[1]}
        kept = [numpy.load(variants.output_path(root, variants.FEATURES, clip))
                for clip in lists.train]
        for ours, theirs in zip(store.sets, kept):
            numpy.testing.assert_array_equal(ours, theirs)
        mean, _ = statistics.read(f)
        numpy.testing.assert_allclose(mean, numpy.concatenate(kept).mean(axis=0), rtol=1e-5)
