"""Letters of any language: the font that comes along, and installed ones for what it lacks."""
import contextlib
import importlib.util
import re
import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path

# matplotlib brings it; it has letters for most languages.
FONT = (Path(importlib.util.find_spec('matplotlib').origin).parent
        / 'mpl-data' / 'fonts' / 'ttf' / 'DejaVuSans.ttf')

_found, _nowhere = {}, set()  # {path of a font: its code points}; those that no font has


def drawable(text):
    """A text that can be drawn in one line: a sign for each byte and letter that cannot."""
    return re.sub(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]', '\ufffd', text)


def installed_with(letters):
    """Paths of installed fonts that together have these code points, as far as there are any.

    A font of coloured pictures, which has no size but its own, is none.
    """
    from matplotlib import font_manager, ft2font
    missing = set(letters) - _nowhere.union(*_found.values())
    # the plain kind before bold and the like
    paths = sorted(font_manager.findSystemFonts(), key=lambda path: ('Regular' not in path, path)
                   ) if missing else []
    for path in paths:
        if not missing:
            break
        with contextlib.suppress(Exception):  # damaged, or of a kind that cannot be drawn
            font = ft2font.FT2Font(path)
            has = set(font.get_charmap())
            if missing & has:
                font.set_size(10, 72)
                font.load_char(min(missing & has))
                _found[path] = has
                missing -= has
    _nowhere.update(missing)
    return [path for path, has in _found.items() if has & set(letters)]


@cache
def _own():
    from matplotlib import ft2font
    return set(ft2font.FT2Font(FONT).get_charmap())


class Lettering:
    """One line of text of one size, letter by letter in the font that has it; FONT before others.

    Args:
        text: what is written.
        size: of the letters, pixels.
    """

    def __init__(self, text, size):
        from PIL import ImageFont

        def font_of(letter):
            lacking = not (letter.isascii() or unicodedata.combining(letter)
                           or ord(letter) in _own())
            return next(iter(installed_with([ord(letter)])), FONT) if lacking else FONT
        self.size, self.first = size, ImageFont.truetype(FONT, size)
        self.parts = [(''.join(part), ImageFont.truetype(path, size))
                      for path, part in groupby(drawable(text), font_of)]

    def width(self):
        """Pixels."""
        return sum(font.getlength(part) for part, font in self.parts)

    def draw(self, pen, left, middle, colour):
        """Draws it from `left` on, in the height of `middle`."""
        ascent, descent = self.first.getmetrics()
        for part, font in self.parts:
            pen.text((left, middle + (ascent - descent) / 2), part, colour, font, anchor='ls')
            left += font.getlength(part)
