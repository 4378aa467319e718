"""States of jobs, as the scheduler tells them, and the numbers under which they were sent."""
import subprocess

from engine.errors import UserError

RECORD = 'jobs.txt'
# What a one-letter state of qstat means; a job that is over or unknown is none of these.
ALIVE = {'Q': 'queued', 'R': 'running', 'H': 'held', 'E': 'ending', 'W': 'waiting',
         'S': 'suspended', 'T': 'moving', 'B': 'running'}


def alive_jobs(scheduler):
    """{job number: state} of the jobs that are queued or running.

    Raises:
        UserError: the scheduler does not answer.
    """
    command = (['squeue', '-h', '-o', '%A x x x %T x'] if scheduler == 'slurm' else ['qstat'])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f'{command[0]}: {error}') from None
    if done.returncode:
        raise UserError(f'{command[0]}: {(done.stderr or done.stdout).strip()}')
    found = {}
    for line in done.stdout.splitlines():
        # Torque, OpenPBS and Slurm's qstat: Job id, Name, User, Time Use, S, Queue
        words = line.split()
        if len(words) >= 6 and words[0][0].isdigit():
            state = words[-2].lower() if scheduler == 'slurm' else ALIVE.get(words[-2])
            if state:
                found[words[0].split('.')[0]] = state
    return found


def submitted_jobs(folder):
    """{part: job id}, as they were recorded; the last one of each part."""
    try:
        lines = (folder / RECORD).read_text(encoding='utf-8').splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split('\t')[:2] for line in lines if '\t' in line)


class Jobs:
    """The jobs that were sent from a folder.

    Attributes:
        known (bool): whether the scheduler answered.
        alive (dict): {part: job id} of those queued or running; none if it did not.
        shown (dict): {part: 'job 12 running'}, for a table.
        complaint (str): why it did not answer.
    """

    def __init__(self, folder, scheduler):
        jobs = submitted_jobs(folder)
        states, self.known, self.complaint = {}, True, ''
        try:
            states = alive_jobs(scheduler) if jobs else {}
        except UserError as error:
            self.known, self.complaint = False, str(error)
        state_of = {part: states.get(job.split('.')[0]) for part, job in jobs.items()}
        otherwise = 'ended' if self.known else '?'
        self.shown = {part: f'{job} {state_of[part] or otherwise}' for part, job in jobs.items()}
        self.alive = {part: job for part, job in jobs.items() if state_of[part]}
