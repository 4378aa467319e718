"""Flags in files: cluster.toml, which a person writes, and flags.json, those of the last time."""
import json
import re
import tomllib

from engine import files
from engine.errors import UserError

SETTINGS, REMEMBERED = 'cluster.toml', 'flags.json'
# What to do, and where, is said each time.
SAID_EACH_TIME = ('root', 'stage', 'settings', 'status', 'resubmit', 'submit', 'dry-run', 'again')
# A word with a space in it is a value: '--dtype float16'.
FLAG = re.compile(r'(--[\w-]+)(?:=.*)?', re.S)


def settings_flags(path):
    """The flags in a TOML file: {'ppn': 8, 'module': ['a', 'b']} -> --ppn=8 --module=a ..."""
    try:
        settings = tomllib.loads(path.read_text(encoding='utf-8-sig'))  # Windows' editors sign
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: {getattr(error, "strerror", None) or error}') from None
    flags = []
    for key, value in settings.items():
        if key in SAID_EACH_TIME:
            raise UserError(f'{path}: {key}: belongs on the command line, not here')
        if isinstance(value, dict):
            raise UserError(f'{path}: [{key}]: expected lines such as ppn = 16, no sections')
        for item in value if isinstance(value, list) else [value]:
            if item is not False:
                flags.append(f'--{key}' if item is True else f'--{key}={item}')
    return flags


def remembered(folder):
    """The flags of the last submission from a folder of jobs, or None."""
    flags = files.read_json(folder / REMEMBERED)
    if flags is not None and not (isinstance(flags, list)
                                  and all(isinstance(flag, str) for flag in flags)):
        raise UserError(f'{folder / REMEMBERED}: is no list of flags; delete it and submit again '
                        'with all flags')
    return flags


def remember(folder, flags):
    """Keeps the flags of a submission, but for those that say what to do this time."""
    files.write_text(folder / REMEMBERED, json.dumps(
        [flag for flag in flags if flag not in ('--resubmit', '--submit', '--dry-run')]))


def replaced(old, given):
    """The flags `old` with those `given` in their places: none is there twice.

    Args:
        old, given: lists of words, '--name value' or '--name=value'.
    """
    names = {flag[1] for flag in map(FLAG.fullmatch, given) if flag}
    kept, keep = [], True
    for word in old:
        flag = FLAG.fullmatch(word)
        if flag:
            keep = flag[1] not in names
        if keep:
            kept.append(word)
    return kept + given
