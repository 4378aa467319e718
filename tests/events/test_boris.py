"""Exports of BORIS, old and new, in the layouts that it writes."""
import pytest

from engine.events.annotations import read_annotations

OLD_HEAD = '''Observation id\tobs 1\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Media file(s)\t\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Player #1\tC:\\films\\a.mp4\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time offset (s)\t{offset}\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
independent variables\t\t\t\t\t\t\t\t
variable\tvalue\t\t\t\t\t\t\t
time\tnoon\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tModifier 1\t\
Comment\tStatus
'''
NEW_HEAD = ('Observation id,Observation date,Description,Observation duration,Observation type,'
            'Source,Time offset (s),Media duration (s),FPS,weather,Subject,Behavior,'
            'Behavioral category,Modifier #1,Behavior type,Time,Media file name,Image index,'
            'Image file path,Comment\n')
AGGREGATED = ('Observation id\tObservation date\tDescription\tObservation type\tSource\t'
              'Time offset (s)\tCoding duration\tMedia duration (s)\tFPS (frame/s)\tSubject\t'
              'Observation duration by subject by observation\tBehavior\tBehavioral category\t'
              'Behavior type\tStart (s)\tStop (s)\tDuration (s)\tMedia file name\t'
              'Image index start\tImage index stop\tImage file path start\t'
              'Image file path stop\tComment start\tComment stop\n')


def old(*events, offset='0.0'):
    return OLD_HEAD.format(offset=offset) + ''.join(
        f'{time}\t{film}\t60.0\t25.0\t{subject}\t{behavior}\t\t{modifier}\t\t{status}\n'
        for time, film, subject, behavior, modifier, status in (
            event if len(event) == 6 else (event[0], 'a.mp4', 'rex', event[1], '', event[2])
            for event in events))


def new(*events, source='player #1:/data/a.mp4', lasts='60.000', film='/data/a.mp4'):
    return NEW_HEAD + ''.join(
        f'o1,2026-01-01,"wind, rain",60.0,Media file(s),{source},0,{lasts},25.000,dry,'
        f'No focal subject,{behavior},,,{status},{time},{film},1,NA,\n'
        for time, behavior, status in events)


def aggregated(*events, source='player #1:a.mp4', lasts='60.000'):
    return AGGREGATED + ''.join(
        f'o1\t2026-01-01\t\tMedia file\t{source}\t2.0\t60.0\t{lasts}\t25.0\trex\t60\t{behavior}\t'
        f'Not defined\t{kind}\t{start}\t{stop}\t1\ta.mp4\t0\t0\tNA\tNA\t\t\n'
        for behavior, kind, start, stop in events)


@pytest.fixture
def read(tmp_path):
    def read(text, encoding='utf-8', **options):
        path = tmp_path / 'export.tsv'
        path.write_bytes(text.encode(encoding))
        intervals, problems = read_annotations(path, **options)
        return ([interval[:5] for interval in intervals],
                [line.removeprefix(f'{path}:') for line in problems])
    return read


def test_older_tabular_events(read):
    assert read(old(('1.5', 'walk', 'START'), ('2', 'sit', 'START'), ('3.25', 'walk', 'STOP'),
                    ('4', 'sit', 'STOP'))) == (
        [('a.mp4', 1.5, 3.25, 'walk', 'rex'), ('a.mp4', 2, 4, 'sit', 'rex')], [])


def test_the_offset_was_added_to_the_times(read):
    assert read(old(('11.5', 'walk', 'START'), ('13', 'walk', 'STOP'), offset='10')
                )[0] == [('a.mp4', 1.5, 3, 'walk', 'rex')]


def test_newer_tabular_events(read):
    assert read(new(('00:00:01.500', 'walk', 'START'), ('3.25', 'walk', 'STOP'))) == (
        [('/data/a.mp4', 1.5, 3.25, 'walk', '')], [])


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'cp1252'])
def test_semicolons_decimal_commas_and_encodings(read, encoding):
    text = old(('1,5', 'a.mp4', 'Zoë', 'geht', '', 'START'),
               ('3,25', 'a.mp4', 'Zoë', 'geht', '', 'STOP')).replace('\t', ';')
    assert read(text, encoding) == ([('a.mp4', 1.5, 3.25, 'geht', 'Zoë')], [])


def test_states_pair_by_subject_behavior_and_modifier(read):
    intervals, problems = read(old(
        ('1', 'a.mp4', 'rex', 'walk', 'fast', 'START'), ('2', 'a.mp4', 'ada', 'walk', '', 'START'),
        ('3', 'a.mp4', 'rex', 'walk', 'slow', 'START'), ('4', 'a.mp4', 'ada', 'walk', '', 'STOP'),
        ('5', 'a.mp4', 'rex', 'walk', 'slow', 'STOP'),
        ('6', 'a.mp4', 'rex', 'walk', 'fast', 'STOP')))
    assert not problems and [interval[1:3] for interval in intervals] == [(2, 4), (3, 5), (1, 6)]


def test_unpaired_states_are_named_by_their_row(read):
    intervals, problems = read(old(
        ('1', 'walk', 'START'), ('2', 'walk', 'START'), ('3', 'walk', 'STOP'),
        ('4', 'walk', 'STOP'), ('5', 'sit', 'START'), ('6', 'run', 'PAUSE')))
    assert [interval[1:3] for interval in intervals] == [(2, 3)]
    assert [line.partition(':')[0] for line in problems] == ['14', '17', '19', '18']


def test_point_events_need_a_length(read):
    text = old(('1', 'jump', 'POINT'), ('0.2', 'jump', 'POINT'))
    intervals, problems = read(text)
    assert not intervals and len(problems) == 1 and '2 point events' in problems[0]
    assert read(text, around=0.5) == ([('a.mp4', 0, 0.7, 'jump', 'rex'),
                                       ('a.mp4', 0.5, 1.5, 'jump', 'rex')], [])


def test_aggregated_events(read):
    text = aggregated(('walk', 'STATE', '3.5', '5.25'), ('jump', 'POINT', '9', '9'),
                      ('sit', 'STATE', '4', 'NA'))
    intervals, problems = read(text)
    assert intervals == [('a.mp4', 1.5, 3.25, 'walk', 'rex')]
    assert problems[0] == '4: "NA" is no time' and 'point' in problems[1]
    assert read(text, around=1)[0][1] == ('a.mp4', 6, 8, 'jump', 'rex')


def test_films_that_follow_each_other_are_told_apart_by_their_lengths(read):
    source, lasts = 'player #1:a.mp4;b.mp4|player #2:c.mp4;d.mp4', '10.000;20.000|10;20'
    intervals, problems = read(new(
        ('1', 'walk', 'START'), ('2', 'walk', 'STOP'), ('10', 'walk', 'START'),
        ('12.5', 'walk', 'STOP'), ('9', 'sit', 'START'), ('11', 'sit', 'STOP'),
        source=source, lasts=lasts))
    assert intervals == [('a.mp4', 1, 2, 'walk', ''), ('b.mp4', 0, 2.5, 'walk', '')]
    assert problems == ['6: sit begins in a.mp4 and ends in b.mp4']


def test_films_that_follow_each_other_without_lengths_are_left_out(read):
    both = [('1', 'a.mp4', 'rex', 'walk', '', 'START'), ('2', 'a.mp4', 'rex', 'walk', '', 'STOP'),
            ('61', 'b.mp4', 'rex', 'walk', '', 'START'), ('62', 'b.mp4', 'rex', 'walk', '', 'STOP')]
    intervals, problems = read(old(*both))
    assert not intervals and len(problems) == 4 and 'lengths' in problems[0]
    above = old(*both[:2]).replace('Time offset', 'Player #1\tb.mp4\nTime offset')
    assert not read(above)[0]


def test_what_has_no_film_is_named(read):
    intervals, problems = read(old(('1', 'LIVE', 'rex', 'walk', '', 'START')))
    assert not intervals and problems == ['14: names no film: a live observation, or one of '
                                          'pictures']


def test_what_is_around_a_point_ends_with_its_film(read):
    text = new(('59.8', 'jump', 'POINT'))
    assert read(text, around=0.5) == ([('/data/a.mp4', 59.3, 60, 'jump', '')], [])


def test_a_source_of_blanks_takes_no_time(read):
    source = 'player #1:' + ' ' * 50000 + 'x.mp4' + ' ' * 50000 + 'y.mp4'
    (interval,), _ = read(new(('1', 'jump', 'POINT'), source=source), around=0.5)
    assert interval[0] == source.removeprefix('player #1:').strip()
