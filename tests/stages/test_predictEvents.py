"""predict.py --events against its own windows, and eventAccuracy.py on what it wrote."""
import csv
import json
import re
import shutil

import numpy
import pytest

import eventAccuracy
import predict
from engine.errors import UserError
from engine.events.merging import OTHER
from engine.weights.card import keep_in_card, read_card
from engine.weights.modelfile import load_weights, save_model
from engine import variants
from FusionNet import load_frame_network
from predictSet import call, draw
from smallSet import copy_set


@pytest.fixture(scope='module')
def root(undisturbed, tmp_path_factory):
    """A root with networks of chance, one of whose classes is nothing."""
    root = copy_set(undisturbed, tmp_path_factory.mktemp('events') / 'root')
    card = read_card(root / variants.FRAME_MODEL)
    model = load_frame_network(root / variants.FRAME_MODEL)[0]
    load_weights(root / variants.FRAME_MODEL, model)
    # the weights may be large enough that the classes differ from window to window
    model.fc8.W.array *= 40
    (root / variants.FRAME_MODEL).unlink()
    save_model(root / variants.FRAME_MODEL, model,
               {**card, 'classes': [*card['classes'][:-1], OTHER]})
    return root


@pytest.fixture(scope='module')
def seen(root, tmp_path_factory):
    """(folder, its films, what predict.py wrote of them)."""
    folder = tmp_path_factory.mktemp('films')
    (folder / 'more').mkdir()
    films = [draw(folder / 'a.mp4', frames=150), draw(folder / 'more/b.avi', '-vf', 'hue=h=90',
                                                      frames=60, sound=False)]
    out = folder / 'seen'
    done = call('--root', root, '--no-rnn', '--window', 12, '--stride', 5, '--top', 99, '--out',
                out, '--events', '--subtitles', '--boris', '--threshold', 0.1, '--gap', 0,
                '--shortest', 0, folder)
    assert done.returncode == 0, done.stderr
    return folder, films, out


def table(path):
    with open(path, newline='') as f:
        return list(csv.DictReader(f))


def happening(windows, moment):
    """What windows in a JSON file say of a moment: '' of nothing, None where figures of six
    decimals cannot tell."""
    shares = {}
    for window in windows:
        if window['from'] <= moment < window['to']:
            for entry in window['frames']:
                shares.setdefault(entry['class'], []).append(entry['probability'])
    (least, _), (most, best) = sorted((numpy.mean(shares[name]), name) for name in shares)[-2:]
    return None if most - least < 1e-5 else best.replace(OTHER, '')


def test_the_threshold_is_for_calibrated_probabilities(root, seen, tmp_path):
    _, films, out = seen
    before = max(float(row['probability']) for row in table(out / 'more/b.events.csv'))
    surer = copy_set(root, tmp_path / 'root')
    (surer / variants.FRAME_MODEL).unlink()
    shutil.copyfile(root / variants.FRAME_MODEL, surer / variants.FRAME_MODEL)
    keep_in_card(surer / variants.FRAME_MODEL, temperature=0.05)
    done = call('--root', surer, '--no-rnn', '--window', 12, '--stride', 5, '--out',
                tmp_path / 'out', '--events', '--gap', 0, '--shortest', 0, '--threshold', before,
                films[1])
    assert done.returncode == 0
    assert max(float(row['probability']) for row in table(tmp_path / 'out/b.events.csv')) > before


def test_events_are_what_the_windows_say(seen):
    _, films, out = seen
    labels = set()
    for film, name in zip(films, ('a', 'more/b')):
        windows = json.loads((out / f'{name}.predicted.json').read_text())['windows']
        rows = table(out / f'{name}.events.csv')
        assert all(row['film'] == str(film) for row in rows)
        for moment in numpy.arange(0.005, windows[-1]['to'], 0.01):
            said = [row['class'] for row in rows
                    if float(row['start']) <= moment < float(row['stop'])]
            expected = happening(windows, moment)
            assert expected is None or said == [expected] * bool(expected), moment
            labels.add(expected)
        assert (out / f'{name}.srt').read_text().count('-->') == len(rows)
        budget = [row for row in table(out / 'budget.csv') if row['film'] == str(film)]
        for row in budget:
            lengths = [float(event['stop']) - float(event['start']) for event in rows
                       if event['class'] == row['class']]
            assert int(row['events']) == len(lengths)
            assert float(row['seconds']) == pytest.approx(sum(lengths), abs=2e-3)
        assert OTHER not in [row['class'] for row in budget]
    assert len(labels) > 3  # else the test would tell little
    project = json.loads((out / 'events.boris').read_text())
    assert list(project['observations']) == ['a', 'b']


def test_unseen_moments_are_no_events(root, tmp_path):
    film = draw(tmp_path / 'a.mp4', frames=100)
    done = call('--root', root, '--no-rnn', '--window', 10, '--stride', 40, '--out', tmp_path,
                '--events', '--threshold', 0, '--gap', 9, '--shortest', 0, film)
    assert done.returncode == 0, done.stderr
    for row in table(tmp_path / 'a.events.csv'):
        assert any(start <= float(row['start']) and float(row['stop']) <= stop
                   for start, stop in ((0, 0.4), (1.6, 2), (3.2, 3.6), (3.6, 4)))
    assert not (tmp_path / 'events.boris').exists() and not (tmp_path / 'a.srt').exists()


def test_what_was_corrected_by_hand_stays(root, seen, tmp_path):
    """And is refused before anything is looked at."""
    _, films, out = seen
    out = shutil.copytree(out, tmp_path / 'out')
    flags = ('--root', root, '--no-rnn', '--window', 30, '--out', out / 'more', films[1])
    path = out / 'more/b.events.csv'
    assert call(*flags).returncode == 0  # the digests stay
    assert call(*flags, '--events').returncode == 0
    corrected = path.read_text() + f'{films[1]},jump,1,2,1\n'
    path.write_text(corrected)
    with pytest.raises(UserError, match='b.events.csv: not as predict.py wrote it'):
        call(*flags, '--events')
    assert path.read_text() == corrected


def test_flags_that_want_others(root):
    assert predict.get_parser().parse_args(['--other', 'no one', 'a.mp4']).other == 'no_one'
    for flags, words in ((('--events',), 'wants --out'), (('--boris',), 'add it'),
                         (('--subtitles',), 'add it'),
                         (('--choose', 'm.csv', '--step', 1), 'add it'),
                         (('--events', '--choose', 'none.csv', '--out', 'x'), 'none.csv')):
        with pytest.raises(UserError, match=words):
            call('--root', root, *flags, 'a.mp4')


# ---------------------------------------------------------------------- how good they are

def test_settings_chosen_are_as_good_as_they_are_said_to_be(root, seen, tmp_path, accuracy):
    """By eventAccuracy.py, of the events as given and of those with what was chosen."""
    _, films, out = seen
    marks = tmp_path / 'marks.csv'
    rows = table(out / 'a.events.csv')[::2] + table(out / 'more/b.events.csv')[1:]
    marks.write_text('film,start,stop,class\n' + ''.join(
        f'{row["film"]},{row["start"]},{row["stop"]},{row["class"]}\n' for row in rows)
        + 'elsewhere,0,1,walk\n')
    flags = ['--root', root, '--no-rnn', '--window', 12, '--stride', 5, '--events', *films]
    done = call(*flags, '--out', tmp_path / 'one', '--threshold', 0.1, '--choose', marks)
    assert done.returncode == 3 and 'no events of a film called elsewhere' in done.stderr
    chosen, given = [line for line in done.stdout.splitlines() if line.startswith('--thres')]
    assert call(*flags, '--out', tmp_path / 'two', *chosen.split(':')[0].split()).returncode == 0
    for folder, line in (('two', chosen), ('one', given)):
        _, said, _ = accuracy('--events', tmp_path / folder, '--annotations', marks)
        assert line.split('F1 ')[1].split(';')[0] in said
        assert f'by frame     {line.split("; ")[1].split()[0]} % right' in said
    better, worse = ([sum(map(float, re.findall(r'[\d.]+(?= at)', line))),
                      float(re.search(r'([\d.]+) % of frames', line)[1])]
                     for line in (chosen, given))
    assert better > worse

@pytest.fixture
def accuracy(monkeypatch, capsys):
    """Runs eventAccuracy.py in this process; returns (exit code, output, errors)."""
    def run(*flags):
        monkeypatch.setattr('sys.argv', ['eventAccuracy.py', *map(str, flags)])
        code = eventAccuracy.main()
        return code, *capsys.readouterr()
    return run


def test_what_was_said_is_right_where_it_is_the_truth(seen, accuracy, tmp_path):
    _, _, out = seen
    code, said, errors = accuracy('--events', out, '--out', tmp_path, '--annotations',
                                  *sorted(out.rglob('*.events.csv')))
    assert code == 0 and not errors
    assert 'by frame     100.0 % right; mean over classes 100.0 %' in said
    assert 'F1           100.0 at 0.1, 100.0 at 0.25, 100.0 at 0.5' in said
    assert 'start 0.00 s, stop 0.00 s off' in said
    assert all(len(line) <= 80 for line in said.splitlines() if str(tmp_path) not in line)
    rows = table(tmp_path / 'eventAccuracy.csv')
    assert rows[-1]['class'] == 'all' and float(rows[-1]['edit score']) == 1
    assert int(rows[-1]['frames']) == 150 + 60
    assert (tmp_path / 'timeline.png').stat().st_size > 5000


def write(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return path


def test_films_that_only_one_side_knows_are_named(accuracy, tmp_path):
    write(tmp_path / 'seen/a.events.csv', 'film,class,start,stop,probability',
          'films/a.mp4,jump,1,3,0.9')
    write(tmp_path / 'seen/b.events.csv', 'film,class,start,stop,probability')
    write(tmp_path / 'seen/c.events.csv', 'film,class,start,stop,probability')
    write(tmp_path / 'seen/b.predicted.json', json.dumps(
        {'video': 'old/b.mov', 'windows': [{'from': 0, 'to': 10}]}))
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class', 'C:\\films\\a.MP4,1,3,jump',
                  'b.mov,0,5,walk', 'b.mov,6,7,other', 'd.avi,1,2,jump', 'a.mp4,2,1,jump')
    code, said, errors = accuracy('--events', tmp_path / 'seen', '--annotations', marks)
    lines = errors.splitlines()
    assert code == 3 and len(lines) == 3
    assert 'marks.csv:6: stops' in lines[0]
    assert 'c.events.csv: no annotation of a film called c' in lines[1]
    assert 'marks.csv:5: no events of a film called d' in lines[2]
    # b, of which nothing was said, counts: 10 s, 5 of them walk; a is known up to 3 s
    assert 'a: no a.predicted.json tells its length; frames are counted up to its last' in said
    assert '2 films, 325 frames, 2 events; 1 event said' in said
    assert f'by frame     {100 * 200 / 325:.1f} % right; mean over classes 50.0 %' in said


def test_what_cannot_be_compared(accuracy, tmp_path):
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class', 'a.mp4,1,3,jump')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='holds no NAME.events.csv; make them: python predict.py'):
        accuracy('--events', tmp_path / 'empty', '--annotations', marks)
    one = write(tmp_path / 'b.events.csv', 'film,class,start,stop,probability')
    with pytest.raises(UserError, match='no film is there of which'):
        accuracy('--events', one, '--annotations', marks)
    for folder in ('x', 'y'):
        write(tmp_path / folder / 'a.events.csv', 'film,class,start,stop,probability')
    empty = write(tmp_path / 'empty.csv')
    code, _, errors = accuracy('--events', tmp_path / 'x', '--annotations', empty, marks)
    assert code == 3 and f'{empty}: not known as annotations' in errors
    with pytest.raises(UserError, match='no film is there'):
        accuracy('--events', tmp_path / 'x', tmp_path / 'y', '--annotations', marks)


def test_marks_that_are_odd_are_told(accuracy, tmp_path):
    write(tmp_path / 'a.events.csv', 'film,class,start,stop,probability', 'a.mp4,jump,1,3,0.9')
    write(tmp_path / 'a.predicted.json', json.dumps(
        {'video': 'a.mp4', 'windows': [{'from': 0, 'to': 10}]}))
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class', 'a.mp4,1,4,jump',
                  'a.mp4,2,3,walk', 'a.mp4,58,60,jump')
    code, said, errors = accuracy('--events', tmp_path / 'a.events.csv', '--annotations', marks)
    assert code == 0 and not errors
    assert 'a: marked up to 60.0 s, but it ends at 10.0 s' in said
    assert 'a: 1.0 s are marked as two things at once' in said


def test_films_of_one_name_in_several_folders_are_told_apart(accuracy, tmp_path):
    for day, start in (('day1', 1), ('day2', 5)):
        write(tmp_path / day / 'a.events.csv', 'film,class,start,stop,probability',
              f'/films/{day}/a.mp4,jump,{start},{start + 2},0.9')
    write(tmp_path / 'a.events.csv', 'film,class,start,stop,probability', 'a.mp4,jump,1,3,0.9')
    events = tmp_path / 'day1', tmp_path / 'day2'
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class', 'C:\\x\\day1\\a.mp4,1,3,jump',
                  'day2/a,5,7,jump', 'a.avi,1,4,walk')
    code, said, errors = accuracy('--events', *events, '--annotations', marks)
    assert code == 3 and 'a.avi may be /films/day1/a.mp4 or /films/day2/a.mp4' in errors
    assert '2 films, 250 frames, 2 events; 2 events said' in said and '100.0 at 0.5' in said
    code, said, errors = accuracy('--events', events[0], '--annotations', marks)
    assert code == 3 and errors.count('is another film than /films/day1/a.mp4') == 2
    assert '1 film, 75 frames, 1 event; 1 event said' in said
    # a name without folders may be either
    with pytest.raises(UserError, match='no film is there'):
        accuracy('--events', tmp_path / 'a.events.csv', '--annotations', marks)
    both = write(tmp_path / 'all.csv', *(tmp_path / 'day1/a.events.csv').read_text().split(),
                 '/films/day2/a.mp4,jump,5,7,0.9')
    assert '2 films, 250 frames, 2 events; 2 events said' in accuracy(
        '--events', both, '--annotations', marks)[1]
    alike = write(tmp_path / 'alike.csv', 'film,start,stop,class', 'a,1,3,jump',
                  'x/day1/a.MP4,4,5,jump', 'day1/a,6,7,jump')
    code, said, errors = accuracy('--events', events[0], '--annotations', alike)
    assert '1 film, 175 frames, 2 events' in said and code == 3  # not that of x/day1
    with pytest.raises(UserError, match='--tiers doing: in none'):
        accuracy('--events', events[0], '--annotations', alike, '--tiers', 'doing')


def test_a_table_of_another_name_knows_its_films_length(accuracy, tmp_path):
    events = write(tmp_path / 'all.csv', 'film,class,start,stop,probability', 'a.mp4,jump,1,3,0.9')
    write(tmp_path / 'a.predicted.json', json.dumps(
        {'video': 'a.mp4', 'windows': [{'from': 0, 'to': 10}]}))
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class', 'a.mp4,1,3,jump')
    assert '1 film, 250 frames' in accuracy('--events', events, '--annotations', marks)[1]


def test_one_table_of_several_films(accuracy, tmp_path):
    events = write(tmp_path / 'all.csv', 'film,class,start,stop,probability',
                   'a.mp4,jump,1,3,0.9', 'b.mp4,jump,0,1,0.9')
    write(tmp_path / 'b.predicted.json', json.dumps(
        {'video': 'b.mp4', 'windows': [{'from': 0, 'to': 5}]}))
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class', 'a.mp4,1,3,jump',
                  'b.mp4,0,1,jump', 'b.mp4,4,5,sit down')
    code, said, errors = accuracy('--events', events, '--annotations', marks)
    assert code == 0 and '2 films, 200 frames, 3 events; 2 events said' in said
    assert 'sit_down' in said  # as cutClips.py calls the class


def test_marks_of_one_class_that_touch_are_one_event(accuracy, tmp_path):
    """Two people, or an annotator who set the mark anew; over frames nobody could tell."""
    write(tmp_path / 'a.events.csv', 'film,class,start,stop,probability', 'a.mp4,jump,1,6,0.9')
    marks = write(tmp_path / 'marks.csv', 'film,start,stop,class,subject', 'a.mp4,3,4.001,jump ,x',
                  'a.mp4,1,3,jump,y', 'a.mp4,2,2.5,jump,x', 'a.mp4,4.002,6,jump,y')
    code, said, errors = accuracy('--events', tmp_path / 'a.events.csv', '--annotations', marks)
    assert code == 0 and '1 film, 150 frames, 1 event; 1 event said' in said
    assert 'F1           100.0 at 0.1, 100.0 at 0.25, 100.0 at 0.5' in said
