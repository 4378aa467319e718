"""Files of ELAN and its exports."""
import pytest

from engine.errors import UserError
from engine.events.annotations import read_annotations
from engine.events.elan import Tiers

EAF = '''<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+01:00" FORMAT="3.0" VERSION="3.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///D:/a%20b/sound.wav" MIME_TYPE="audio/x-wav"/>
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///D:/a%20b/film%201.mp4" MIME_TYPE="video/mp4"
            RELATIVE_MEDIA_URL="./film%201.mp4"/>
    </HEADER>
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1500"/>
        <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="3250"/>
        <TIME_SLOT TIME_SLOT_ID="ts3"/>
        <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="5000"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" PARTICIPANT="Zoë" TIER_ID="doing">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1"
            TIME_SLOT_REF2="ts2"><ANNOTATION_VALUE>walk &amp; talk</ANNOTATION_VALUE>
        </ALIGNABLE_ANNOTATION></ANNOTATION>
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2"
            TIME_SLOT_REF2="ts3"><ANNOTATION_VALUE>sit</ANNOTATION_VALUE>
        </ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="sub" PARENT_REF="doing" TIER_ID="detail">
        <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a1">
            <ANNOTATION_VALUE>left</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="run">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a4" TIME_SLOT_REF1="ts2"
            TIME_SLOT_REF2="ts4"><ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
</ANNOTATION_DOCUMENT>
'''


@pytest.fixture
def read(tmp_path):
    def read(text, name='marks.eaf', encoding='utf-8', **options):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        intervals, problems = read_annotations(path, **options)
        return ([interval[:5] for interval in intervals],
                [line.removeprefix(f'{path}: ').removeprefix(f'{path}:') for line in problems])
    return read


WALK = ('D:/a b/film 1.mp4', 1.5, 3.25, 'walk & talk', 'Zoë')


def test_eaf(read):
    assert read(EAF) == ([WALK, (*WALK[:3], 'left', ''), (WALK[0], 3.25, 5, 'run', '')],
                         ['a2 of doing: its borders have no time of their own'])


def test_tiers_are_chosen_by_name(read):
    assert read(EAF, tiers=['run']) == ([(WALK[0], 3.25, 5, 'run', '')], [])
    tiers = Tiers(['run', 're\u0301el'])
    assert read(EAF.replace('doing', 'r\u00e9el'), tiers=tiers)[0][1:] == [
        (WALK[0], 3.25, 5, 'run', '')]
    tiers.check()
    tiers = Tiers(['run', 'doign'])
    assert not read(EAF, tiers=tiers)[1]
    with pytest.raises(UserError, match='--tiers doign: in none of'):
        tiers.check()
    assert read(EAF, tiers=['walk'])[1] == ['has no tier walk, but doing, detail, run']


def test_a_film_that_begins_elsewhere_than_the_annotations(read):
    text = EAF.replace('MIME_TYPE="video/mp4"', 'MIME_TYPE="video/mp4" TIME_ORIGIN="-500"')
    assert read(text)[0][0][1:3] == (1, 2.75)


def test_an_eaf_in_utf_16_that_names_no_film_means_its_own_name(read):
    text = EAF.replace('UTF-8', 'UTF-16').replace('.mp4', '.wav').replace('video/', 'audio/')
    assert read(text, encoding='utf-16')[0][0] == ('marks', *WALK[1:])


@pytest.mark.parametrize('change,reason', [
    (('<ANNOTATION_DOCUMENT', '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
      '<ANNOTATION_DOCUMENT'), 'document type'),
    (('</ANNOTATION_DOCUMENT>', ''), 'no whole XML'),
    (('"milliseconds"', '"PAL-frames"'), 'PAL-frames'),
    (('ANNOTATION_DOCUMENT', 'svg'), 'not known')])
def test_an_eaf_that_is_none_is_refused(read, change, reason):
    with pytest.raises(UserError, match=reason):
        read(EAF.replace(*change))


TIMES = ['{0} - hh:mm:ss.ms', '{0} - ss.msec', '{0} - msec']


@pytest.mark.parametrize('text,expected', [
    # as it comes without names of columns: tier, participant, three times in two forms, value
    ('doing\tZoë\t00:00:01.500\t1.500\t00:00:03.250\t3.250\t00:00:01.750\t1.750\twalk\n',
     [('film1', 1.5, 3.25, 'walk', 'Zoë')]),
    ('doing\t\t00:00:01.500\t00:00:03.250\twalk "slowly\ndoing\t\t00:00:04.000\t00:00:05.000\t\n',
     [('film1', 1.5, 3.25, 'walk "slowly', ''), ('film1', 4, 5, 'doing', '')]),
    ('Tier\tParticipant\tBegin Time - msec\tEnd Time - msec\tDuration - msec\tAnnotation\n'
     'doing\tZoë\t1500\t3250\t1750\twalk\n', [('film1', 1.5, 3.25, 'walk', 'Zoë')]),
    # another language, a column for each tier, the films' files
    ('Temps de départ - hh:mm:ss.ms\tTemps de fin - hh:mm:ss.ms\tDurée - hh:mm:ss.ms\tdoing\t'
     'subject\tFile Name\n00:00:01.500\t00:00:03.250\t00:00:01.750\twalk\t\tday2.eaf\n',
     [('day2', 1.5, 3.25, 'walk', '')]),
    ('"#file:///C:/films/day 3.mp4 -- offset: 0, duration: 00:10:00.000 / 600000"\n'
     'doing\t00:00:01.500\t00:00:03.250\twalk\n', [('day 3.mp4', 1.5, 3.25, 'walk', '')])])
def test_tab_delimited(read, text, expected):
    assert read(text, 'film1.txt') == (expected, [])


def test_tiers_of_a_tab_delimited_export(read):
    text = ('Begin Time - ss.msec\tEnd Time - ss.msec\tdoing\tsaying\n'
            '1.5\t3.25\twalk\t\n' '2\t3\t\thello\n')
    assert read(text, 'f.txt', tiers=['doing']) == ([('f', 1.5, 3.25, 'walk', '')], [])
    assert len(read(text, 'f.txt')[0]) == 2
    assert read(text, 'f.txt', tiers=['x'])[1] == ['has no tier x, but doing, saying']


def test_a_long_chain_of_references_has_the_borders_of_its_first(read):
    """In time that grows with its length: the square of it would take minutes."""
    count = 30000
    links = ''.join(
        f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="r{i}" ANNOTATION_REF="{of}">'
        f'<ANNOTATION_VALUE>v</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>'
        for i, of in [(i, f'r{i + 1}') for i in range(count)] + [(count, 'a1'), ('x', 'rx')])
    intervals, problems = read(EAF.replace('<TIER ', f'<TIER TIER_ID="chain">{links}</TIER><TIER ',
                                           1), tiers=['chain'])
    assert intervals == [(*WALK[:3], 'v', '')] * (count + 1)
    assert problems == ['rx of chain: its borders have no time of their own']


def test_a_long_comment_that_names_no_film(read):
    text = '#' + 'a.' * 50000 + '\ndoing\t00:00:01.500\t00:00:03.250\twalk\n'
    assert read(text, 'f.txt')[0] == [('f', 1.5, 3.25, 'walk', '')]
