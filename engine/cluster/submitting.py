"""Sending jobs to the scheduler, one by one, and writing down under which numbers."""
import shlex
import subprocess
import time

from engine import files
from engine.cluster.dialects import DIALECTS
from engine.cluster.states import RECORD
from engine.cluster.status import PACK
from engine.errors import UserError


def submit(scheduler, folder, names, after=(), old_pack=None, dry=False):
    """Submits jobs whose files stand in a folder, and records each in its jobs.txt.

    Args:
        scheduler: key of DIALECTS.
        names: of the jobs, in order; the packing job, if it is one of them, comes last.
        after: ids of jobs sent before, for which packing waits as well.
        old_pack: id of the packing job that a new one takes the place of.
        dry: only shows the commands.

    Raises:
        UserError: a job was refused.
    """
    dialect, ids = DIALECTS[scheduler], list(after)
    for name in names:
        if name == PACK and old_pack and not dry:
            # It may wait for ever for a part that died.
            _run([dialect.cancel, old_pack], folder)
        words = dialect.submit(name, ids if name == PACK else ())
        if dry:
            print(shlex.join(words), flush=True)
            ids.append(f'ID_OF_{name}')
            continue
        # --parsable: "12;cluster"
        ids.append(_run(words, folder).partition(';')[0])
        files.append_line(folder / RECORD, f'{name}\t{ids[-1]}\t{time.strftime("%FT%T%z")}')
        print(f'{name}: job {ids[-1]}', flush=True)


def _run(words, folder):
    """Runs a command of the scheduler; returns what it prints."""
    # From the folder, with names that have none: not every qsub quotes what it hands on.
    try:
        done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f'{shlex.join(words)}: {getattr(error, "strerror", None) or error}'
                        ) from None
    return done.stdout.strip()
