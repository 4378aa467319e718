"""Command lines: the parser of every script, and kinds of numbers, as argparse takes them."""
import argparse
import math


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows its description as it stands, and takes no flag abbreviated: a
    slip of the hand is not to be another flag. Those of its sub-commands are such, too."""

    def __init__(self, **options):
        super().__init__(**{'formatter_class': argparse.RawDescriptionHelpFormatter,
                            'allow_abbrev': False, **options})


def whole(least, most=2 ** 32 - 1):
    """Returns an argparse type: whole numbers from `least` to `most` (by default that of NumPy's
    seeds)."""
    def number(text):
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number') from None
        if value < least:
            raise argparse.ArgumentTypeError(f'{text}, but at least {least}, please')
        if value > most:
            raise argparse.ArgumentTypeError(f'{text}, but at most {most}, please')
        return value
    return number


def real(least=-math.inf, above=-math.inf, most=math.inf, below=math.inf):
    """Returns an argparse type: finite numbers within these bounds (above and below: without)."""
    def number(text):
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f'{text} is not finite')
        for fits, word, bound in (
                (value >= least, 'at least', least), (value > above, 'above', above),
                (value <= most, 'at most', most), (value < below, 'below', below)):
            if not fits:
                raise argparse.ArgumentTypeError(f'{text}, but {word} {bound:g}, please')
        return value
    return number


def fold(text):
    """An argparse type: 'K/N', the K-th of N folds, from 1."""
    k, slash, n = text.partition('/')
    if not (slash and k.isdecimal() and n.isdecimal() and text.isascii() and len(n) < 6):
        raise argparse.ArgumentTypeError(f'{text!r}, but K/N, please, such as 2/5')
    if not 1 <= int(k) <= int(n) or int(n) < 2:
        raise argparse.ArgumentTypeError(f'{text}, but folds 1/N to N/N, N at least 2, please')
    return f'{int(k)}/{int(n)}'


positive = real(above=0)
not_negative = real(least=0)
# Of numbers or of the side of a frame: all of them is too many.
share = real(least=0, below=1)
at_once = whole(1, 1024)  # threads or processes
