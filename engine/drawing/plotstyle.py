"""How every plot is made: with matplotlib as it comes, whatever the user has set.

A plot is a function that returns a matplotlib Figure, and imports what it needs of matplotlib
inside; `save` and `as_png` call it and turn what it returns into PNG. So no matplotlibrc, no
backend and no font of the user's changes a picture, a `$` in a name is a letter, and whatever
goes wrong is a UserError that says why.
"""
import contextlib
import functools
import io
import logging
import os
import re
import sys
import unicodedata
import warnings

from engine.drawing.fonts import installed_with
from engine.errors import UserError
from engine.files import replacing

INK, MUTED, FAINT = '#1f2933', '#6b7785', '#dfe4ea'
GAINED, LOST = '#2166ac', '#c8553d'  # told apart by colour-blind readers, too
PAPER_TO_INK = ('#ffffff', '#d6e6f4', '#8fbfe0', '#3f8fc5', '#14599d', '#08284f')
MOST_PIXELS = 12000  # a side; a picture of more would take over half a GB


@functools.cache
def failure():
    """Imports matplotlib as if the user had set nothing; returns what keeps it from working."""
    # Settings it cannot read and folders it cannot write are the user's affair.
    logging.getLogger('matplotlib').setLevel(logging.ERROR)
    try:
        with contextlib.chdir('/') if os.path.exists('matplotlibrc') else contextlib.nullcontext():
            import matplotlib.figure  # noqa: F401
            import matplotlib.backends.backend_agg  # noqa: F401
    except Exception as error:  # not installed, or no folder at all for its cache
        return _reason(error)


def _reason(error):
    return f'{type(error).__name__}: {" ".join(str(error).split())}'


os.environ.update(MPLBACKEND='Agg', MATPLOTLIBRC=os.devnull)
if os.path.exists('matplotlibrc'):
    # It is passed by leaving this folder for a moment, which must be before any thread starts;
    # else matplotlib, half a second, is imported when something is drawn.
    failure()


def shares_map():
    """The colour map of shares of 1, from paper to ink."""
    from matplotlib.colors import LinearSegmentedColormap
    return LinearSegmentedColormap.from_list('paper to ink', PAPER_TO_INK)


def width_of(text):
    """How many letters wide a text is; those of Chinese, Japanese and Korean count as 1.7."""
    return sum(1.7 if unicodedata.east_asian_width(letter) in 'WF' else 1 for letter in text)


def save(path, draw, *args, dpi=130):
    """Draws `draw(*args)`, a Figure, into a PNG file, which appears whole or not at all.

    Raises:
        UserError: it cannot be drawn or written.
    """
    try:
        data = as_png(draw, *args, dpi=dpi)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    with replacing(path) as temporary, open(temporary, 'wb') as f:
        f.write(data)


def as_png(draw, *args, dpi=130):
    """Draws `draw(*args)`, a Figure, and returns it as PNG, bytes.

    Raises:
        UserError: it cannot be drawn.
    """
    if failure():
        raise UserError(f'not drawn, as matplotlib does not work here ({failure()})')
    try:
        data, missing = _render(draw, args, dpi, [])
    except Exception as error:
        raise UserError(f'not drawn ({_reason(error)})') from error
    if missing:
        with contextlib.suppress(Exception):  # a font that cannot be used leaves boxes
            data, missing = _render(draw, args, dpi, _fonts_with(missing))
    if missing - _told:
        print(f'no font on this machine has {" ".join(map(chr, sorted(missing - _told)[:10]))}: in '
              'pictures boxes stand for such letters (apt install fonts-noto-cjk, for emoji '
              'fonts-symbola)',
              file=sys.stderr)
        _told.update(missing)
    return data


_told = set()


def _render(draw, args, dpi, fonts):
    """-> (PNG, code points of letters that neither DejaVu Sans nor `fonts` has)."""
    import matplotlib
    with warnings.catch_warnings(record=True) as told, matplotlib.rc_context():
        warnings.filterwarnings('always', 'Glyph')
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({'text.parse_math': False,
                                    'font.family': ['DejaVu Sans', *fonts]})
        figure = draw(*args)
        data = io.BytesIO()
        figure.savefig(data, format='png',
                       dpi=min(dpi, MOST_PIXELS / max(figure.get_size_inches())))
    found = [re.match(r'Glyph (\d+)', str(warning.message)) for warning in told]
    return data.getvalue(), {int(match[1]) for match in found if match}


def _fonts_with(letters):
    """Names of installed fonts that have some of these code points."""
    from matplotlib import font_manager
    names = []
    for path in installed_with(letters):
        font_manager.fontManager.addfont(path)
        names.append(font_manager.fontManager.ttflist[-1].name)
    return names
