"""jobs.txt: under which ids the jobs of a folder were sent; and who may write what they write."""
import os
import pwd
import stat
import time
from typing import NamedTuple

from engine import files
from engine.errors import UserError

RECORD = 'jobs.txt'
# In place of an id that could not be read from what the scheduler printed.
UNCLEAR = '?'


class Sent(NamedTuple):
    """A job as it was sent: its id, the ids it waits for, by whom."""
    job: str
    after: tuple = ()
    user: str = ''


def read(folder):
    """{part: Sent}, the last one of each part."""
    try:
        lines = (folder / RECORD).read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f'{folder / RECORD}: cannot be read: '
                        f'{getattr(error, "strerror", None) or "not a text"}') from None
    found = {}
    for line in lines:
        part, job, *more = line.split('\t') if '\t' in line else (line, '')
        if job.strip():
            fields = dict(word.split(' ', 1) for word in more if ' ' in word)
            after = fields.get('after')
            found[part] = Sent(job.strip(), tuple(after.split(':')) if after else (),
                               fields.get('by', ''))
    return found


def add(folder, part, job, after=()):
    """Appends a line to jobs.txt: part, id, time, 'by USER', and 'after 12:13' or nothing."""
    path = folder / RECORD
    line = '\t'.join([part, job, time.strftime('%FT%T%z'), f'by {user_name(os.geteuid())}',
                      *[f'after {":".join(after)}'] * bool(after)])
    if path.exists() and not os.access(path, os.W_OK):
        # Another person's, in a folder that is for both.
        files.write_text(path, path.read_text(encoding='utf-8').rstrip('\n') + f'\n{line}\n')
    else:
        files.append_line(path, line)


def files_of(folder, jobs):
    """What is written in the folder for these jobs."""
    # where it is for both, jobs.txt is written anew
    return [folder, *(folder / f'{job}.{kind}' for job in jobs for kind in ('log', 'out'))]


def check_rights(paths):
    """Refuses what this person may not write: files, folders, or what is to be made in them.

    Raises:
        UserError: names the first of them, whose it is, and how many more there are.
    """
    refused = [path for path in map(_existing, dict.fromkeys(paths))
               if not os.access(path, os.W_OK)]
    if refused:
        path, more = refused[0], len(set(refused)) - 1
        about = os.stat(path)
        raise UserError(
            f'{path}: belongs to {user_name(about.st_uid)} ({stat.filemode(about.st_mode)}), and '
            f'{user_name(os.geteuid())} may not write there'
            + (f', nor in {more} more' if more else '') + '; nothing is submitted. '
            'Its owner can share it: chmod -R g+w, and umask 002 before the next submission')


def _existing(path):
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def user_name(number):
    """What a person is called here."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f'user {number}'
