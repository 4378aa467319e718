"""Features of other programs: every form that they are written in, and what is wrong with them."""
import functools
import importlib.util
import json
import os
import pickle
import sys

import h5py
import numpy
import pytest

import combine
import confusion
import exportOnnx
import featureSet
import helperFunctions as hf
import importFeatures
import normalizeData
import report
import results
import rnn
import save_hdf5
import singleFrameAccuracy
import smallSet
from engine import hdf5, variants
from engine.errors import UserError
from engine.learning import foreignfeatures

WIDTH = 7


@pytest.fixture
def own(tmp_path):
    """A root with lists alone: 42 clips of three classes."""
    root = tmp_path / 'own'
    root.mkdir()
    featureSet.make_features(root)
    for path in root.glob('*.hdf5'):
        path.unlink()
    return root


@pytest.fixture
def call(call_in, own):
    """call_in with this root."""
    return functools.partial(call_in, own)


def clips_of(root):
    lists = hf.read_lists(root)
    return lists.train + lists.test


def drawn(clips, width=WIDTH, dtype=numpy.float64, rows=None):
    """{clip name: (n, width)}: a class drifts its own way."""
    random = numpy.random.RandomState(1)
    features = {}
    for clip in clips:
        n = rows or random.randint(2, 12)
        features[clip.name] = random.randn(n, width)
        features[clip.name][:, clip.label] += numpy.linspace(0, 3, n)
    return {name: values.astype(dtype) for name, values in features.items()}


def saved(root, clip):
    return numpy.load(variants.output_path(root, variants.FEATURES, clip))


def card_of(root):
    return json.loads((root / variants.FEATURES / variants.IMPORTED).read_text())


# ---------------------------------------------------------------- how programs write them

def by_video_features(folder, clips, features):
    """CLIP_KEY.npy, times and rate beside it, as v-iashin/video_features does."""
    for name, values in features.items():
        numpy.save(folder / f'{name}_resnet.npy', values)
        numpy.save(folder / f'{name}_fps.npy', numpy.array(25.0))
        numpy.save(folder / f'{name}_timestamps_ms.npy', 40.0 * numpy.arange(len(values)))


def in_class_folders(folder, clips, features):
    for clip in clips:
        (folder / 'deep' / clip.class_name).mkdir(parents=True, exist_ok=True)
        numpy.save(folder / 'deep' / clip.class_name / f'{clip.name}.avi.npy',
                   features[clip.name][:, :, None, None])


def in_a_folder_a_clip(folder, clips, features):
    for name, values in features.items():
        (folder / f'{name}.avi').mkdir()
        numpy.save(folder / f'{name}.avi' / 'c3d_features.npy', values[None])


def a_file_a_window(folder, clips, features):
    for name, values in features.items():
        for i, row in enumerate(values):
            numpy.save(folder / f'{name}_rgb_{16 * i}_{16 * i + 16}.npy', row)


def in_one_npz(folder, clips, features):
    numpy.savez(folder / 'all.npz', **features)


def in_an_npz_a_clip(folder, clips, features):
    for name, values in features.items():
        numpy.savez_compressed(folder / f'{name}.npz', features=values, fps=numpy.array(25.0))


def in_one_hdf5(folder, clips, features):
    with h5py.File(folder / 'all.h5', 'w') as f:
        for clip in clips:
            f.create_dataset(f'{clip.class_name}/{clip.name}', data=features[clip.name])


def in_an_hdf5_a_clip(folder, clips, features):
    for name, values in features.items():
        with h5py.File(folder / f'{name}.hdf5', 'w') as f:
            f.create_dataset('features', data=values, compression='gzip')


@pytest.mark.parametrize('write, dtype', [
    (by_video_features, 'f8'), (in_class_folders, 'f2'), (in_a_folder_a_clip, '>f4'),
    (a_file_a_window, 'f8'), (in_one_npz, 'f2'), (in_an_npz_a_clip, 'f4'), (in_one_hdf5, 'f8'),
    (in_an_hdf5_a_clip, 'f2')])
def test_every_form_gives_the_same_features(write, dtype, own, call, tmp_path):
    clips = clips_of(own)
    features = drawn(clips, dtype=dtype)
    (tmp_path / 'there').mkdir()
    write(tmp_path / 'there', clips, features)
    assert call(importFeatures, tmp_path / 'there') == 0
    for clip in clips:
        got = saved(own, clip)
        assert got.dtype == numpy.float32
        numpy.testing.assert_array_equal(got, features[clip.name].astype(numpy.float32))
    card = card_of(own)
    assert (card['n_features'], card['clips']) == (WIDTH, len(clips))
    assert card['rate'] == (25 if write is by_video_features else None)
    assert card['rows']['of'].startswith('files' if write is a_file_a_window else 'frames')


@pytest.mark.parametrize('width, rows, dtype', [(512, 1, 'f8'), (2048, 3, 'f2'), (20, None, 'f4')])
def test_the_stages_after_it_do_without_frame_predictions(width, rows, dtype, own, call, tmp_path,
                                                          capsys):
    clips = clips_of(own)
    (tmp_path / 'there').mkdir()
    by_video_features(tmp_path / 'there', clips, drawn(clips, width, dtype, rows))
    assert call(importFeatures, tmp_path / 'there', '--name', 'R50') == 0
    if rows == 1:
        assert 'no order' in capsys.readouterr().out
    assert call(save_hdf5) == call(normalizeData) == 0
    assert not (own / variants.TEST_PREDICTIONS).exists()
    with hdf5.open_hdf5(own / variants.TRAIN_HDF5, '') as f:
        held_out = hdf5.read_names(f, 'held_out')
        assert hdf5.attribute(f, 'n_features') == width
    groups = {clip.name: (clip.class_name, clip.group) for clip in clips}
    assert held_out and not {groups[name] for name in held_out} & {
        group for name, group in groups.items() if name not in held_out}
    stand_in = '--cell linear --name linear'
    for stage in (singleFrameAccuracy, confusion):
        with pytest.raises(UserError, match=stand_in):
            call(stage)
    if rows:
        return  # the rest is the same
    for flags in (stand_in.split(), []):
        assert call(rnn, '--tiny', *flags) == 0
    assert call(combine, 'linear_testPredictions.hdf5', 'RNN_testPredictions.hdf5') == 0
    assert call(confusion) == call(results) == call(report) == 0
    assert (own / 'gain_linear-on-R50_LSTM-1x16-on-R50.png').exists()
    methods = [line['method'] for line in featureSet.lines_of(own)]
    assert methods[:2] == ['linear on R50', 'LSTM 1x16 on R50']
    assert 'linear on R50' in (own / report.REPORT).read_text()
    if importlib.util.find_spec('onnx'):
        assert call(exportOnnx) == 0 and (own / 'RNN.onnx').exists()


def test_held_out_anew_is_another_set(own, call, tmp_path, capsys):
    clips = clips_of(own)
    (tmp_path / 'there').mkdir()
    by_video_features(tmp_path / 'there', clips, drawn(clips))
    call(importFeatures, tmp_path / 'there', '--name', 'R50')

    def pack(*flags):
        assert call(save_hdf5, *flags) == call(normalizeData) == 0
        with hdf5.open_hdf5(own / variants.TRAIN_HDF5, '') as f:
            return hdf5.attribute(f, 'set')[:16], set(hdf5.read_names(f, 'held_out'))
    first, held_out = pack()
    call(rnn, '--tiny')
    assert featureSet.lines_of(own)[-1]['features'] == first
    # Of the same sides it is the same set, in which any other way to look is of the same network.
    assert pack() == (first, held_out)
    second, others = pack('--seed', 1)
    assert others != held_out and first != second
    with pytest.raises(UserError, match=f'held_out_clips .* packed {first} -> {second}.*--restart'):
        call(rnn, '--tiny')
    # What has been learned from validates neither that network nor one that goes on from it.
    for flags in (['--test-only'], ['--name', 'deep', '--start-from', 'RNN']):
        with pytest.raises(UserError, match='RNN.model: has learned from .* validation clips of '
                                            'now .*train'):
            call(rnn, '--tiny', *flags)
    call(rnn, '--tiny', '--name', 'blind', '--cell', 'mean')
    call(results, '--unit', 'video')
    assert 'blind' not in capsys.readouterr().out.partition('What order adds')[2]
    # Others of the same sides are told of in their place.
    third = pack('--dtype', 'float16')[0]
    capsys.readouterr()
    call(rnn, '--tiny', '--test-only')
    assert f'other features ({third}) than' in capsys.readouterr().out
    assert featureSet.lines_of(own)[-1]['features'] == third != first


# ---------------------------------------------------------------- what is wrong with them

class Harm:
    def __reduce__(self):
        return os.mkdir, ('harm',)


def spoil(there, features):
    """Spoils the first clips' features, or their files; returns {clip name: what is said of it}."""
    names, reasons = list(features), {}

    def take(reason, values=None):
        name = names[len(reasons)]
        reasons[name] = reason
        del features[name]
        if values is not None:
            numpy.save(there / f'{name}.npy', values, allow_pickle=True)
        return there / f'{name}.npy'
    take('no features')
    take('width 9', numpy.random.rand(4, 9))
    take('not finite', numpy.full((4, WIDTH), numpy.nan))
    take('nothing but 0.5', numpy.full((4, WIDTH), 0.5))
    take('too large for float32', numpy.full((4, WIDTH), 1e300))
    take('holds int64', numpy.arange(4 * WIDTH).reshape(4, WIDTH))
    take('shape (4, 7, 2)', numpy.random.rand(4, WIDTH, 2))
    take('shape (0,)', numpy.zeros(0))
    take('pickled', numpy.array([Harm()], object))
    twice = take('twice', numpy.random.rand(3, WIDTH))
    (there / 'again').mkdir()
    numpy.save(there / 'again' / twice.name, numpy.random.rand(3, WIDTH))
    take('no features').write_bytes(pickle.dumps(Harm()))
    cut = take('no features', numpy.random.rand(4, WIDTH))
    cut.write_bytes(cut.read_bytes()[:-9])
    with h5py.File(there.parent / 'secret.h5', 'w') as f:
        f['rows'] = numpy.random.rand(4, WIDTH)
    with h5py.File(take('no features').with_suffix('.h5'), 'w') as f:
        f['features'] = h5py.ExternalLink(str(there.parent / 'secret.h5'), 'rows')
    raw = there.parent / 'raw'
    raw.write_bytes(numpy.random.rand(4, WIDTH).tobytes())
    outside = take('another file').stem
    with h5py.File(there / 'some.h5', 'w') as f:
        f.create_dataset(outside, (4, WIDTH), 'f8', external=[(str(raw), 0, raw.stat().st_size)])
    (there / 'other.pkl').write_bytes(pickle.dumps(Harm()))
    os.mkfifo(there / 'pipe.npy')
    return reasons


def test_what_is_wrong_is_named_and_the_rest_is_taken(own, call, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importFeatures, 'MOST_NAMED', 99)
    clips, there = clips_of(own), tmp_path / 'there'
    features = drawn(clips)
    there.mkdir()
    reasons = spoil(there, features)
    in_one_npz(there, clips, features)
    assert call(importFeatures, there) == 3
    said = capsys.readouterr().out
    for name, reason in reasons.items():
        [line] = [line for line in said.splitlines() if line.startswith(f'{name}: ')]
        assert reason in line
    for words in ('is a link, which may lead to another file', 'is not as long as its header says',
                  'pickles are never loaded', 'pipe.npy: no file but a pipe'):
        assert words in said
    assert not (tmp_path / 'harm').exists()
    for clip in clips:
        if clip.name in reasons:
            assert not variants.output_path(own, variants.FEATURES, clip).exists()
        else:
            numpy.testing.assert_allclose(saved(own, clip), features[clip.name], rtol=1e-6)
    with pytest.raises(UserError, match=rf'{len(reasons)} of .* importFeatures.py'):
        call(save_hdf5)
    assert call(save_hdf5, '--allow-missing') == 3


def test_kinds_are_asked_for_where_several_are_there(own, call, tmp_path):
    there, clips = tmp_path / 'there', clips_of(own)
    there.mkdir()
    kinds = {key: drawn(clips, width) for key, width in (('rgb', 5), ('flow', 6))}
    for key, features in kinds.items():
        for name, values in features.items():
            numpy.save(there / f'{name}_{key}.npy', values)
    with pytest.raises(UserError, match='rgb.*--key'):
        call(importFeatures, there)
    with pytest.raises(UserError, match='no clip has it'):
        call(importFeatures, there, '--key', 'depth')
    assert call(importFeatures, there, '--key', 'flow', '--stream', 'flow') == 0
    assert call(importFeatures, there, '--key', 'rgb') == 0
    assert call(save_hdf5) == call(save_hdf5, '--stream', 'flow') == 0
    for name, width in ((variants.TRAIN_HDF5, 5), ('train1024_flow.hdf5', 6)):
        with hdf5.open_hdf5(own / name, '') as f:
            assert hdf5.attribute(f, 'n_features') == width


def test_a_missing_window_and_times_of_other_features_are_named(own, call, tmp_path, capsys):
    there, clips = tmp_path / 'there', clips_of(own)
    there.mkdir()
    features = drawn(clips, rows=5)
    a_file_a_window(there, clips, features)
    (there / f'{clips[0].name}_rgb_32_48.npy').unlink()
    numpy.save(there / f'{clips[1].name}_timestamps_ms.npy', numpy.arange(6.0))
    assert call(importFeatures, there) == 3
    said = capsys.readouterr().out
    assert f'{clips[0].name}: has windows 0, 16, 48' in said
    assert f'{clips[1].name}: has 5 features, but 6 times' in said


def test_transposed_features_are_not_taken(own, call, tmp_path):
    clips = clips_of(own)[:4]
    for n, clip in enumerate(clips, 2):
        numpy.save(tmp_path / f'{clip.name}.npy', numpy.random.rand(512, n))
    with pytest.raises(UserError, match='Transpose'):
        call(importFeatures, tmp_path)


@pytest.mark.parametrize('parts, clip, key', [
    (['run_1'], 'run_1', ''), (['run_10'], 'run', '#'), (['run_1_2'], 'run_1', '#'),
    (['runner'], None, ''), (['run.mp4_clip'], 'run', 'clip'), (['x', 'run', '3'], 'run', '#'),
    (['jump', 'b_i3d'], 'jump_b', 'i3d'), (['run_resnet50'], 'run', 'resnet50'),
    (['a b_r21d'], 'a b', 'r21d')])
def test_whose_an_array_is(parts, clip, key, tmp_path):
    path = tmp_path.joinpath(*parts[:-1], parts[-1] + '.npy')
    array = foreignfeatures.Array(path, None, (), None)
    ours, others = foreignfeatures.assign([array], tmp_path, ['run', 'run_1', 'jump_b', 'a b'])
    assert [(array.clip, array.key) for array in ours] == ([(clip, key)] if clip else [])
    assert len(others) == (clip is None)


# ---------------------------------------------------------------- what was there before

def test_features_of_two_origins_are_never_mixed(own, call, tmp_path):
    clips = clips_of(own)
    for name in ('first', 'second'):
        (tmp_path / name).mkdir()
        in_one_npz(tmp_path / name, clips, drawn(clips))
    assert call(importFeatures, tmp_path / 'first') == 0
    with pytest.raises(UserError, match='another origin.*rm -r'):
        call(importFeatures, tmp_path / 'second')
    before = card_of(own)['model_sha256']
    numpy.savez(tmp_path / 'first/all.npz', **{
        name: rows + 1 for name, rows in drawn(clips[1:]).items()})
    assert call(importFeatures, tmp_path / 'first') == 3  # renewed; a clip has gone
    assert card_of(own)['model_sha256'] != before
    assert not variants.output_path(own, variants.FEATURES, clips[0]).exists()
    (own / variants.TEST_PREDICTIONS).touch()
    with pytest.raises(UserError, match='rm .*testPredictions'):
        call(save_hdf5, '--allow-missing')


def test_an_import_that_was_stopped_is_none_and_goes_on(own, call, tmp_path, monkeypatch):
    clips = clips_of(own)
    (tmp_path / 'there').mkdir()
    in_one_npz(tmp_path / 'there', clips, drawn(clips))
    with monkeypatch.context() as patch:
        patch.setattr(importFeatures, 'save_npy', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(importFeatures, tmp_path / 'there')
    with pytest.raises(UserError, match='stopped in the middle.*importFeatures.py'):
        call(save_hdf5)
    assert call(importFeatures, tmp_path / 'there') == call(save_hdf5) == 0


def test_features_of_stage_2_are_left_alone(undisturbed, tmp_path, monkeypatch):
    root = tmp_path / 'root'
    root.mkdir()
    for name in (variants.LISTS, variants.FEATURES):
        (root / name).symlink_to(undisturbed / name)
    numpy.save(tmp_path / f'{clips_of(root)[0].name}.npy', numpy.random.rand(3, 4))
    monkeypatch.setattr(sys, 'argv', ['importFeatures.py', str(tmp_path), '--root', str(root)])
    with pytest.raises(UserError, match='another origin'):
        importFeatures.main()


# ---------------------------------------------------------------- of another program

def test_features_that_pytorch_computed(small_set, tmp_path, monkeypatch):
    """A network of random weights looks at clips, decoded by OpenCV, and is written as extractors
    write."""
    torch = pytest.importorskip('torch', reason='pip install -r requirements-bench.txt')
    import cv2
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 7, 4), torch.nn.ReLU(), torch.nn.Conv2d(64, 512, 3, 2),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    root = smallSet.copy_set(small_set, tmp_path / 'root')
    (root / variants.FRAME_MODEL).unlink()
    written = {}
    for clip in clips_of(root):
        video = cv2.VideoCapture(str(clip.path))
        frames, times = [], []
        while (got := video.read())[0]:
            times.append(video.get(cv2.CAP_PROP_POS_MSEC))
            frames.append(cv2.resize(got[1], (64, 64))[..., ::-1].transpose(2, 0, 1) / 255.0)
        with torch.no_grad():
            rows = network(torch.tensor(numpy.array(frames), dtype=torch.float32))
        written[clip.name] = numpy.array(rows.tolist())
        for key, values in (('convnet', written[clip.name]), ('timestamps_ms', numpy.array(times))):
            numpy.save(tmp_path / f'{clip.name}_{key}.npy', values)
    for script, *flags in ((importFeatures, str(tmp_path)), (save_hdf5,), (normalizeData,),
                           (rnn, '--tiny')):
        monkeypatch.setattr(sys, 'argv', ['x.py', *flags, '--root', str(root)])
        assert not script.main()
    assert card_of(root)['rate'] == pytest.approx(25, rel=0.01)
    with hdf5.open_hdf5(root / variants.TEST_HDF5, '') as f:
        for name in hdf5.clip_names(f):
            numpy.testing.assert_allclose(hdf5.read(f, name, ''), written[name], rtol=1e-6)
