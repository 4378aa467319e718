"""States of jobs, as the scheduler tells them."""
import os
import re
import subprocess
from typing import NamedTuple

from engine.cluster import record
from engine.errors import UserError

# What a one-letter state of qstat means (qstat(1B) of Torque and OpenPBS); a job that is over is
# none of these. U: suspended as somebody sits at the workstation; of Slurm's qstat, any other.
ALIVE = {'Q': 'queued', 'R': 'running', 'H': 'held', 'E': 'ending', 'W': 'waiting',
         'S': 'suspended', 'T': 'moving', 'B': 'running', 'M': 'moved', 'U': 'suspended'}
OVER = {'C', 'F', 'X'}
# Of Slurm's (squeue(1)) those in which a job never runs again.
SLURM_OVER = {'BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL',
              'OUT_OF_MEMORY', 'PREEMPTED', 'REVOKED', 'TIMEOUT'}
# Its reasons to wait that say no more than that.
USUAL = {'None', 'Priority', 'Resources', 'Dependency', 'BeginTime'}
NEVER = 'DependencyNeverSatisfied'
HIDDEN = ("another person's, and the scheduler does not tell how it is; who sent it sees it by "
          '--status. If it is over, take its line out of jobs.txt')
# States of a job that has not begun.
WAITING = ('queued', 'held', 'waiting')


class State(NamedTuple):
    """Of a job that is alive: 'queued', 'running' ..., and why, in the scheduler's words."""
    word: str
    comment: str = ''


def number(job):
    """What tells one job from another: '12.server' and '12' are the same."""
    return job.split('.')[0]


def alive_jobs(scheduler, others=()):
    """{job number: State} of the jobs that are queued, running or in between.

    Args:
        others: ids of jobs that another person has sent. Where everybody sees their own alone
            (the default of Torque's), each that may be alive counts as 'hidden'.

    Raises:
        UserError: the scheduler does not answer.
    """
    slurm = scheduler == 'slurm'
    found = (_slurm(_ask('squeue', '-h', '-t', 'all', '-o', '%A|%T|%r')) if slurm else
             _pbs(_ask('qstat')))
    unseen = [job for job in others if number(job) not in found]
    if unseen and slurm and not re.search(r'(?m)^PrivateData\s*=.*\bjobs\b',
                                          _ask('scontrol', 'show', 'config')):
        unseen = []
    return {**{number(job): State('hidden', HIDDEN) for job in unseen if slurm or _hidden(job)},
            **found}


def _pbs(text):
    found = {}
    for line in text.splitlines():
        # Torque, OpenPBS and Slurm's qstat: Job id, Name, User, Time Use, S, Queue
        words = line.split()
        if len(words) >= 5 and words[0][0].isdigit() and words[-2] not in OVER:
            # A letter that is not known may mean a job that runs: never send it again.
            found[number(words[0])] = State(ALIVE.get(words[-2], f'state {words[-2]}'))
    return found


def _hidden(job):
    """Whether qstat knows a job that it does not list, and will not speak of it."""
    done = _run('qstat', job)
    if done.returncode:  # else: unknown, or over
        return 'unauthorized' in (done.stdout + done.stderr).lower()
    return number(job) not in done.stdout


def _slurm(text):
    found = {}
    for line in text.splitlines():
        job, state, reason = (*line.strip().split('|', 2), '', '')[:3]
        if job and state not in SLURM_OVER:
            word = {'PENDING': 'queued'}.get(state, state.lower())
            if state == 'PENDING' and reason.startswith('JobHeld') or reason == 'Dependency':
                word = 'held'
            waits = state == 'PENDING' and reason not in USUAL
            found[job] = State(word, reason if waits else '')
    return found


def comments(scheduler, jobs):
    """{id: why it waits} of queued jobs, in the scheduler's words; of those that have any."""
    if scheduler == 'slurm' or not jobs:
        return {}
    try:
        # Its exit code tells of any that has ended meanwhile.
        text = subprocess.run(['qstat', '-f', *jobs], capture_output=True, text=True,
                              errors='replace', timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for block in re.split(r'(?m)^Job Id:\s*', text)[1:]:
        # a long line goes on behind a tab
        comment = re.search(r'(?m)^\s+comment = (.*)$', block.replace('\n\t', ''))
        if comment:
            found[number(block.split()[0])] = comment[1].strip()
    return {job: found[number(job)] for job in jobs if number(job) in found}


def _run(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, errors='replace',
                              timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f'{command[0]}: {error}') from None


def _ask(*command):
    done = _run(*command)
    if done.returncode:
        raise UserError(f'{command[0]}: {" ".join((done.stderr or done.stdout).split())}')
    return done.stdout


class Jobs:
    """The jobs that were sent from a folder.

    Attributes:
        known (bool): whether the scheduler answered; `complaint` is why not.
        sent (dict): {part: record.Sent}.
        others (list): ids of those that another person has sent.
        states (dict): {part: State} of those alive; empty if it did not answer.
        unclear (list): parts that were sent under an id that could not be read.
    """

    def __init__(self, folder, scheduler):
        self.folder, self.scheduler = folder, scheduler
        self.sent = record.read(folder)
        me = record.user_name(os.geteuid())
        self.others = [sent.job for sent in self.sent.values()
                       if sent.user not in ('', me) and sent.job != record.UNCLEAR]
        states, self.known, self.complaint = {}, True, ''
        try:
            states = alive_jobs(scheduler, self.others) if self.sent else {}
        except UserError as error:
            self.known, self.complaint = False, str(error)
        self.states = {part: states[number(sent.job)] for part, sent in self.sent.items()
                       if number(sent.job) in states}
        self.unclear = [part for part, sent in self.sent.items() if sent.job == record.UNCLEAR]

    @property
    def alive(self):
        """{part: job id} of those queued, running or in between."""
        return {part: self.sent[part].job for part in self.states}

    def shown(self, part):
        """'12 running': what a table says of a part's job."""
        if part not in self.sent:
            return '-'
        state = self.states.get(part)
        return (f'{self.sent[part].job} '
                + (state.word if state else 'ended' if self.known and part not in self.unclear
                   else '?'))

    def waiting(self):
        """{comment: [parts]} of the jobs that wait or are hidden, in the scheduler's words."""
        queued = {part: self.sent[part].job for part, state in self.states.items()
                  if state.word in WAITING or state.comment}
        told = comments(self.scheduler, list(queued.values()))
        found = {}
        for part, job in queued.items():
            comment = self.states[part].comment or told.get(job)
            if comment:
                found.setdefault(comment, []).append(part)
        return found
