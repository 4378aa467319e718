"""Plots: nothing of the user's changes them, names are text, what fails is said."""
import hashlib
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure

from engine.drawing import fonts, plotstyle
from engine.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
ODD = ('text.usetex: True\nfont.family: cursive\naxes.facecolor: red\nsavefig.bbox: tight\n'
       'figure.autolayout: True\nlines.nonsense: 1\nbackend: TkAgg\n')
CURVE = '''
from engine.drawing import fonts, plotstyle
def curve():
    from matplotlib.figure import Figure
    figure = Figure(figsize=(6, 4))
    axes = figure.add_subplot(xlabel='epoch', ylabel='loss')
    axes.plot([1, 2, 3], [1, 0.5, 0.3])
    return figure
plotstyle.save('loss.png', curve)
'''


def named(name, x=0.5):
    figure = Figure(figsize=(4, 1))
    figure.text(x, 0.5, name, ha='center')
    return figure


def draw_elsewhere(folder, **environment):
    """Draws a loss curve in a process of its own, in `folder`; returns the file's digest."""
    done = subprocess.run(
        [sys.executable, '-c', CURVE], cwd=folder, capture_output=True, text=True, timeout=120,
        env=dict(os.environ, PYTHONPATH=str(REPOSITORY), **environment))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    return hashlib.sha256((folder / 'loss.png').read_bytes()).hexdigest()


def test_nothing_of_the_users_changes_a_plot(tmp_path):
    """Settings in the folder of settings, by the environment and, no text at all, in the working
    folder; backends that are not there; no folder to write to."""
    plain, odd, worse = (tmp_path / name for name in ('plain', 'odd', 'worse'))
    for folder in (plain, odd, worse):
        folder.mkdir()
    (odd / 'matplotlibrc').write_text(ODD)
    (worse / 'matplotlibrc').write_bytes(b'font.family: \xff\xfe\n')
    expected = draw_elsewhere(plain)
    assert draw_elsewhere(plain, MPLCONFIGDIR=str(odd), MATPLOTLIBRC=str(odd / 'matplotlibrc'),
                          MPLBACKEND='module://matplotlib_inline.backend_inline') == expected
    assert draw_elsewhere(worse, MPLCONFIGDIR='/proc/1', MPLBACKEND='Foo') == expected


@pytest.mark.parametrize('name', ['$a^{b}$', '$100 % a_b$', r'$\frac{', '$', '$$', '~#&_{}^'])
def test_dollars_and_other_signs_are_text(name):
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        expected = io.BytesIO()  # where formulas are drawn, a dollar behind a backslash is text
        named(name.replace('$', r'\$')).savefig(expected, format='png', dpi=130)
    assert plotstyle.as_png(named, name) == expected.getvalue()


@pytest.fixture
def symbols(monkeypatch):
    """(a letter that DejaVu Sans lacks, the one font 'installed', which has it)."""
    folder = fonts.FONT.parent
    font = folder / 'STIXNonUni.ttf'
    has, lacks = (set(ft2font.FT2Font(path).get_charmap()) for path in (font, fonts.FONT))
    monkeypatch.setattr(font_manager, 'findSystemFonts',
                        lambda: [str(folder / 'no.ttf'), str(font)])
    for place, name, empty in ((plotstyle, '_told', set()), (fonts, '_nowhere', set()),
                               (fonts, '_found', {})):
        monkeypatch.setattr(place, name, empty)
    return chr(max(has - lacks)), font


def test_letters_that_the_usual_font_lacks_come_from_another(symbols, monkeypatch, capsys):
    letter, font = symbols
    drawn = plotstyle.as_png(named, letter)
    with matplotlib.rc_context({'font.family': ['DejaVu Sans', 'STIXNonUnicode']}):
        expected = io.BytesIO()
        named(letter).savefig(expected, format='png', dpi=130)
    assert drawn == expected.getvalue() and capsys.readouterr().err == ''
    # Where no font has it, boxes stand there, and a line says so, once.
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [])
    monkeypatch.setattr(fonts, '_found', {})
    assert plotstyle.as_png(named, letter) == plotstyle.as_png(named, letter) != drawn
    told = capsys.readouterr().err
    assert told.startswith(f'no font on this machine has {letter}') and told.count('\n') == 1


def test_a_large_picture_is_drawn_coarser():
    data = plotstyle.as_png(lambda: Figure(figsize=(300, 1)))
    most = plotstyle.MOST_PIXELS
    assert struct.unpack('>II', data[16:24]) == (most, most // 300)


def test_what_cannot_be_drawn_is_one_line_with_the_reason(tmp_path, monkeypatch):
    def bad():
        raise KeyError('no\nsuch epoch')
    with pytest.raises(UserError, match=r"a.png: not drawn \(KeyError: 'no.nsuch epoch'\)$"):
        plotstyle.save(tmp_path / 'a.png', bad)
    monkeypatch.setattr(plotstyle, 'failure', lambda: 'OSError: no folder to write to')
    with pytest.raises(UserError, match='does not work here .*no folder to write to'):
        plotstyle.save(tmp_path / 'a.png', named, 'x')
    assert not list(tmp_path.iterdir())
