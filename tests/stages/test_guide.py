"""The guide: every command in it runs, every message it explains is one that is shown."""
import glob
import importlib
import os
import re
import shlex
import subprocess
import sys

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import imageio_ffmpeg
import numpy
import pytest

import featureSet
from engine import hdf5, variants
from engine.drawing.clips import write_avi
from engine.drawing.filmmarks import write_marks
from engine.drawing.films import Act, frames
from VGGNet import VGGNet
from engine.learning.featurenet import FeatureNet
from engine.learning.inference import predict
from engine.weights.modelfile import save_model
from engine.learning.sequences import FeatureStore, SequenceBatches
from rnn import SequenceUpdater
from smallSet import REPOSITORY

DOCS = REPOSITORY / 'docs'
# What a network of this size does in a second takes no --tiny.
QUICK = ('frameBasedTrain.py', 'rnn.py')


def commands(page):
    """The lines of a page's ```sh blocks, backslashes joined."""
    blocks = re.findall(r'^```sh\n(.*?)^```', (DOCS / page).read_text(), re.M | re.S)
    return [line for block in blocks for line in block.replace('\\\n', ' ').splitlines() if line]


def make_videos(folder):
    """Three classes of moving test patterns, of five people, in other sizes, rates and codecs."""
    looks = {'walk': 'testsrc2', 'wave': 'mandelbrot', 'fall': 'life=ratio=0.3:mold=10'}
    kinds = (('mp4', '96x64', 25), ('mkv', '64x96', 15), ('avi', '80x80', 30))
    for class_name, source in looks.items():
        (folder / class_name).mkdir(parents=True)
        for number, person in enumerate(('anna', 'ben', 'cleo', 'dora', 'emil')):
            extension, size, rate = kinds[number % 3]
            mark = '=' if '=' not in source else ':'
            subprocess.run([
                imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-f', 'lavfi', '-i',
                f'{source}{mark}size={size}:rate={rate}', '-frames:v', str(12 + number),
                '-vf', f'hue=h={40 * number}', '-pix_fmt', 'yuv420p',
                folder / class_name / f'{person}1.{extension}'], check=True)


def make_films(films, marks, people):
    """Films of two actions of the demo, and marks of all three kinds."""
    acts = [Act(None, 0, 60), Act('MoveLeft', 60, 90), Act(None, 90, 150), Act('Grow', 150, 180)]
    drawn = [(films / f'{person}.avi', person, acts) for person in people]
    for number, (path, _, _) in enumerate(drawn):
        path.parent.mkdir(exist_ok=True)
        write_avi(path, frames(0, number, acts), 'of a test')
    write_marks(marks, drawn)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the scripts, gone into."""
    for path in REPOSITORY.iterdir():
        if path.suffix in ('.py', '.sh') or path.name in ('engine', 'docs'):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def execute(workplace, monkeypatch):
    """Runs a line of a page; a script in this process, which saves a second a line."""
    def run(line):
        words = [name for word in shlex.split(line)
                 for name in (sorted(glob.glob(word)) if '*' in word else [word])]
        if words[0] != 'python':
            done = subprocess.run(words, env=dict(os.environ, PYTHON=sys.executable),
                                  capture_output=True, text=True, timeout=240)
            assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
        elif words[1] == 'convertWeights.py':
            # The download itself: tests/stages/test_convertWeights.py, from a server of its own.
            numpy.random.seed(0)
            vgg = VGGNet((8, 8, 8, 8, 8), 32, 10, 32)
            save_model(workplace / words[words.index('--root') + 1] / variants.VGG_MODEL, vgg,
                       {'kind': 'VGG', 'shape': vgg.shape})
        else:
            tiny = ['--tiny'] * (words[1] in QUICK and '--test-only' not in words)
            monkeypatch.setattr(sys, 'argv', words[1:] + tiny)
            assert not importlib.import_module(words[1].removesuffix('.py')).main(), line
    return run


def test_own_videos_from_the_first_command_to_the_last(workplace, execute):
    """And then those of accuracy.md, which look at what came of it."""
    make_videos(workplace / 'videos')
    (workplace / 'new.mp4').write_bytes((workplace / 'videos/walk/anna1.mp4').read_bytes())
    lines = commands('own-videos.md')
    assert len(lines) > 12
    for line in lines:
        execute(line)
    assert (workplace / 'own/report.html').stat().st_size > 10000
    assert {path.suffix for path in (workplace / 'seen').iterdir()} == {'.mp4', '.png', '.json'}
    for line in commands('accuracy.md'):
        execute(line)


def test_films_from_annotations_to_events_in_ten_commands(workplace, execute, capsys):
    make_films(workplace / 'films', workplace / 'marks', ('anna', 'ben', 'cleo', 'dora'))
    make_films(workplace / 'newFilms', workplace / 'newMarks', ('emil', 'fay', 'gus'))
    lines = commands('films.md')
    assert len(lines) == 10
    for line in lines:
        execute(line)
    assert '3 films, 540 frames, 6 events' in capsys.readouterr().out
    seen = {path.name for path in (workplace / 'seen').iterdir()}
    assert {'emil.events.csv', 'emil.srt', 'events.boris', 'budget.csv', 'eventAccuracy.csv',
            'timeline.png', 'emil.predicted.json'} <= seen


def test_the_family_of_the_guide_learns_and_is_not_misled_by_padding(tmp_path):
    page = (DOCS / 'papers.md').read_text()
    names = {'FeatureNet': FeatureNet, 'chainer': chainer, 'F': chainer.functions,
             'L': chainer.links}
    exec(re.search(r'^```python\n(.*?)^```', page, re.M | re.S).group(1), names)
    numpy.random.seed(0)
    model = names['AttentionNet'](featureSet.N_FEATURES, len(featureSet.CLASSES))
    lists = featureSet.make_features(tmp_path)
    with hdf5.open_hdf5(tmp_path / variants.TRAIN_HDF5, '') as f:
        store = FeatureStore(f, lists.train)
    batches = SequenceBatches(store, 10, 12, seed=0, variable_length=True)
    optimizer = chainer.optimizers.Adam(0.05).setup(model)
    updater = SequenceUpdater(model, batches, optimizer, seed=0, converter=lambda batch, _: batch,
                              device=chainer.get_device('@numpy'))
    for _ in range(60):
        updater.update()
    answers = dict(predict(model, store, chainer.get_device('@numpy'), 4, technique='full',
                           steps=0))
    right = [answers[clip.name][0].argmax() == clip.label for clip in lists.train]
    assert answers[lists.train[0].name].shape == (1, 3) and numpy.mean(right) > 0.8
    xs = numpy.random.randn(9, 2, featureSet.N_FEATURES).astype('f')
    short = model(xs, [5, 9]).array
    xs[5:, 0] = 99
    numpy.testing.assert_array_equal(model(xs, [5, 9]).array, short)
    # and the places where it is to be named
    for script, place in (('RNNNet.py', 'def new_network('), ('RNNNet.py', "add_argument('--cell'"),
                          ('RNNNet.py', 'def load_rnn('), ('FusionNet.py', 'NETWORKS = {'),
                          ('engine/variants.py', 'STREAMS = (')):
        assert place in (REPOSITORY / script).read_text()


def test_messages_that_are_explained_are_shown():
    """The fixed part of each message stands in the code."""
    code = ''.join(path.read_text() for path in
                   sorted([*REPOSITORY.glob('*.py'), *REPOSITORY.glob('engine/**/*.py'),
                           REPOSITORY / 'Makefile']))
    # Strings that go on in the next line are joined, f-strings cut at what they put in.
    joined = re.sub(r"'\s*\n\s*f?'", '', code)
    table = (DOCS / 'troubleshooting.md').read_text()
    messages = [text for line in table.splitlines() if line.startswith('| `')
                for text in re.findall(r'`([^`]+)`', line.split('|')[1])]
    assert len(messages) > 20
    others = {"Failed building wheel for chainer", "No module named 'pkg_resources'",
              'DO NOT MATCH THE HASHES',  # these three are pip's
              'holds features made with another model', 'the loss became nan',
              'stopped by SIGTERM', 'stopped by SIGHUP (its terminal has gone)'}  # put together
    missing = [text for text in messages if text not in joined and text not in others]
    assert not missing


def test_every_page_is_reached_from_the_readme_and_links_lead_somewhere():
    pages = sorted(DOCS.glob('*.md'))
    assert len(pages) <= 10
    reached = set()
    for page in [REPOSITORY / 'README.md', *pages]:
        for link in re.findall(r'\]\(([^)#:]+)\)', page.read_text()):
            target = (page.parent / link).resolve()
            assert target.exists(), f'{page.name}: {link}'
            reached.add(target)
    assert not [page.name for page in pages if page not in reached]
