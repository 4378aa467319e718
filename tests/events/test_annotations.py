"""Annotations are read whoever wrote them, and what is wrong in them is named by its row."""
import pytest

from engine.errors import UserError
from engine.events.annotations import read_annotations
from engine.events.films import films_of
from engine.events.intervals import film_stem
from engine.events.tables import seconds


def read(tmp_path, text, encoding='utf-8', **options):
    path = tmp_path / 'marks.csv'
    path.write_bytes(text.encode(encoding))
    intervals, problems = read_annotations(path, **options)
    return ([interval[:5] for interval in intervals],
            [line.removeprefix(f'{path}:') for line in problems])


@pytest.mark.parametrize('text,value', [
    ('12.5', 12.5), ('12,5', 12.5), ('0', 0), ('1:02.25', 62.25), ('01:00:00.040', 3600.04),
    ('1e1', 10), ('-0:01.5', -1.5)])
def test_seconds(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize('text', ['', 'NA', 'nan', 'inf', '1:2:3:4', '1e999', '--1',
                                  '9' * 400 + ':00', '9' * 400 + ':00:00', '9' * 400])
def test_no_seconds(text):
    with pytest.raises(ValueError):
        seconds(text)


@pytest.mark.parametrize('name,stem', [
    (r'C:\films\a.mp4', 'a'), ('/x/a.MP4', 'a'), ('a', 'a'), ('./a.2024.avi', 'a.2024'),
    ('12.30 walk', '12.30 walk')])
def test_film_stem(name, stem):
    assert film_stem(name) == stem


@pytest.mark.parametrize('first,second', [
    ('a b.mp4', 'a_b.mp4'), ('day 1/a.mp4', 'day_1/a.mp4'), ('a b.mp4', 'a_b.mkv')])
def test_no_two_films_have_one_name(tmp_path, first, second):
    """Files of clips hold no blanks: what differs in them alone would become one film."""
    def films(*names):
        return films_of([tmp_path / name for name in names])
    try:
        names = [film.name for film in films(first, second)]
    except UserError as error:
        assert first in str(error) and second in str(error) and 'rename one' in str(error)
    else:
        assert len(set(names)) == 2
    assert [film.name for film in films(first)] == ['a_b' if 'b' in first else 'a']


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
@pytest.mark.parametrize('text', [
    'film,start,stop,class,subject\nä.mp4,1.5,00:00:03,run,Zoë\n',
    'Film;Start;Stop;Class;Subject\r\nä.mp4;1,5;3,0;run;Zoë\r\n',
    'subject\tclass\tstop\tstart\tfilm\n\nZoë\trun\t3\t1.5\tä.mp4\n',
    'ä.mp4,1.5,3,run,Zoë\n'])
def test_plain_tables(tmp_path, text, encoding):
    assert read(tmp_path, text, encoding) == ([('ä.mp4', 1.5, 3, 'run', 'Zoë')], [])


def test_events_of_predict_are_a_plain_table(tmp_path):
    text = 'film,class,start,stop,probability\nday/a.mp4,run,1.000,2.500,0.91\n'
    assert read(tmp_path, text) == ([('day/a.mp4', 1, 2.5, 'run', '')], [])


def test_wrong_rows_are_named_and_the_rest_is_read(tmp_path):
    intervals, problems = read(tmp_path, 'film,start,stop,class\n'
                               'a.mp4,1,1,run\n' 'a.mp4,3,2,run\n' 'a.mp4,x,2,run\n'
                               ',1,2,run\n' 'a.mp4,1,2\n' 'a.mp4,1,2,run\n')
    assert intervals == [('a.mp4', 1, 2, 'run', '')]
    assert [line.partition(':')[0] for line in problems] == ['4', '5', '6', '2', '3']


@pytest.mark.parametrize('text', ['', 'clip,group\na,b\n', 'film,start\na,1\n'])
def test_what_is_no_annotation_is_refused(tmp_path, text):
    with pytest.raises(UserError, match='not known as annotations'):
        read(tmp_path, text)
