"""Sending jobs to the scheduler, one by one, and writing down under which ids.

OpenPBS drops a job that is to wait for one which has ended and is forgotten, and says nothing.
So parts are held until the packing job, which waits for them, is in; and where it waits for parts
that were sent earlier and run, it is looked for.
"""
import contextlib
import os
import shlex
import subprocess
import sys

from engine import locks
from engine.cluster import record
from engine.cluster.dialects import DIALECTS
from engine.cluster.jobstates import Jobs, alive_jobs, number
from engine.cluster.progresstable import PACK
from engine.errors import UserError


class Refused(UserError):
    """The scheduler does not take a job."""


class Submission:
    """Jobs that are sent together from a folder.

    Args:
        scheduler: key of DIALECTS.
        folder (Path): where the job files stand, and jobs.txt.
        go_on: the command that sends what could not be sent, for messages.
        again (bool): the jobs are sent by themselves, as their walltime is over, not by a
            person, from whose command on it is counted how often they begin.
        here: the command that does the work without a scheduler, for messages; '' for none.
    """

    def __init__(self, scheduler, folder, go_on, again=False, here=''):
        self.scheduler, self.dialect = scheduler, DIALECTS[scheduler]
        self.folder, self.go_on, self.again, self.here = folder, go_on, again, here
        self.sent, self.held, self.others = {}, [], ()

    def parts(self, names, jobs, pack, really):
        """Sends parts, and a packing job if `pack`; or shows how.

        Args:
            names: of the parts to send.
            jobs (states.Jobs): those sent before, some of which may be at work.
        """
        self.others = jobs.others
        before = {part: job for part, job in jobs.alive.items() if part != PACK}
        if pack and jobs.unclear:
            pack = False
            print(f'not packed: nobody knows how {" ".join(jobs.unclear)} will end', flush=True)
        if not names and not pack:
            print('no part has clips left that no job is at', file=sys.stderr)
        after = before if pack else None
        if not really:
            self.show(names, after)
            return
        # left so by a submission that was cut off, or by a person
        held = [job for part, job in before.items() if jobs.states[part].word == 'held']
        for job in held:
            print(f'job {job} is held, and is released now', flush=True)
        self.submit(names, after, held, jobs.alive.get(PACK))

    def show(self, names, pack=None):
        """Prints the commands that `submit` would run."""
        names, hold = [*names], bool(names and pack is not None)
        ids = [f'ID_OF_{name}' for name in names]
        for name in names:
            print(shlex.join(self.dialect.submit(name, hold=hold)))
        if pack is not None:
            print(shlex.join(self.dialect.submit(PACK, [*pack.values(), *ids])))
        for job in ids if hold else ():
            print(shlex.join([*self.dialect.release.split(), job]))

    def submit(self, names, pack=None, held=(), old_pack=None):
        """Submits jobs and records each in jobs.txt.

        Args:
            names: of the parts or the training.
            pack: None, or {part: id} of jobs sent before for which a packing job waits, as for
                those of `names`.
            held: ids of jobs that were left held by a submission that was cut off.
            old_pack: id of the packing job whose place a new one takes.

        Raises:
            UserError: a job was refused; says what was sent and what was not.
        """
        todo = [*names, *[PACK] * (pack is not None)]
        self.held += held
        try:
            for name in names:
                self._send(name, hold=pack is not None)
            if pack is not None:
                if old_pack:
                    self._cancel(old_pack)
                self._send_pack(dict(pack))
        except Refused as error:
            left = [name for name in todo if name not in self.sent]
            raise UserError(f'{error}; sent: {" ".join(self.sent) or "nothing"}; not sent: '
                            f'{" ".join(left)}. When it takes them again, {self.go_on} goes on'
                            + f'; without a scheduler, here: {self.here}' * bool(self.here)
                            ) from None
        finally:
            self._release()

    def _send(self, name, after=(), hold=False):
        if not self.again:
            (self.folder / f'{name}.starts').unlink(missing_ok=True)
        try:
            done = self._run(self.dialect.submit(name, after, hold))
        except BaseException as error:
            if not isinstance(error, UserError):  # Ctrl-C: it may be in, or not
                record.add(self.folder, name, record.UNCLEAR)
            raise
        job = self.dialect.id_in(done.stdout)
        # with an id it is in, whatever a script around qsub ends with
        if done.returncode and not job:
            words = " ".join((done.stderr or done.stdout).split())
            raise Refused(f'{name}: {self.dialect.submit(name)[0]} refused it: '
                          f'{words or f"exit code {done.returncode}"}')
        try:
            record.add(self.folder, name, job or record.UNCLEAR, after)
        except BaseException:
            if job:  # nobody would know of it
                self._cancel(job)
            raise
        if job is None:
            sent = ', '.join(f'{part} as {id_}' for part, id_ in self.sent.items())
            words = ' '.join((done.stdout + done.stderr).split())
            raise UserError(
                f'{name}: was submitted, but what was printed holds no id, or more than one: '
                f'{words!r}. Find it with qstat or squeue and put it into '
                f'{self.folder / record.RECORD} in place of the {record.UNCLEAR}, or cancel it and '
                f'take the line out. Sent before: {sent or "nothing"}')
        self.sent[name] = job
        if hold:
            self.held.append(job)
        print(f'{name}: job {job}', flush=True)
        return job

    def _send_pack(self, before):
        new = list(self.sent.values())
        while True:
            refusal = None
            try:
                job = self._send(PACK, [*before.values(), *new])
            except Refused as error:
                refusal = error
            if not before:
                if refusal:
                    raise refusal
                return
            # The jobs of `new` are held; one of `before` may have ended since it was looked for.
            alive = alive_jobs(self.scheduler, self.others)
            if refusal is None and number(job) in alive:
                return
            gone = [part for part, id_ in before.items() if number(id_) not in alive]
            if not gone:
                raise refusal or Refused(f'{PACK}: job {job} is not known any more')
            self.sent.pop(PACK, None)
            for part in gone:
                del before[part]
            print(f'{PACK}: {", ".join(gone)} ended meanwhile; sent anew, to wait for the others',
                  flush=True)

    def _cancel(self, job):
        done = self._run([self.dialect.cancel, job])
        if done.returncode:
            print(f'job {job} could not be cancelled: '
                  f'{" ".join((done.stderr or done.stdout).split())}', flush=True)

    def _release(self):
        for job in self.held:
            with contextlib.suppress(UserError):
                done = self._run([*self.dialect.release.split(), job])
                if done.returncode == 0:
                    continue
            print(f'job {job} is still held: {self.dialect.release} {job}', flush=True)

    def _run(self, words):
        # From the folder, with names that have none: not every qsub quotes what it hands on.
        try:
            return subprocess.run(words, cwd=self.folder, capture_output=True, text=True,
                                  errors='replace', stdin=subprocess.DEVNULL)
        except OSError as error:
            raise Refused(f'{words[0]}: {error.strerror}') from None


def only_one(folder, when=True, patience=0.0):
    """Lets no second submission from a folder begin before this one has ended.

    Args:
        patience: seconds to wait for another one.
    """
    return locks.only_one(folder / record.RECORD, when, patience)


def send_again(args, folder, job, pack=False):
    """Sends a job again, from within it as its walltime is nearly over; `pack`: and a packing job.

    Raises:
        UserError: it is not to be had; --resubmit by hand is.
    """
    with only_one(folder, patience=60):  # the parts of a submission end together
        jobs = Jobs(folder, args.scheduler)
        sent = jobs.sent.get(job)
        if sent is None or not jobs.known:
            raise UserError(f'{job}: not sent again: '
                            f'{jobs.complaint or "never submitted from here"}')
        if number(sent.job) == number(os.environ.get('PBS_JOBID', '')):
            jobs.states.pop(job, None)
        if job in jobs.alive:
            raise UserError(f'{job}: not sent again, as job {jobs.shown(job)}')
        Submission(args.scheduler, folder, '--resubmit', again=True).parts(
            [job], jobs, pack, True)
