"""Kinds of numbers on a command line, as argparse takes them."""
import argparse


def whole(least):
    """Returns an argparse type: whole numbers from `least` up (to 2**32-1, for NumPy's seeds)."""
    def number(text):
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number') from None
        if value < least:
            raise argparse.ArgumentTypeError(f'{text}, but at least {least}, please')
        if value >= 2 ** 32:
            raise argparse.ArgumentTypeError(f'{text} is too large')
        return value
    return number
