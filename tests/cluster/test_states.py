"""States of jobs, as schedulers print them."""
import os

import pytest

from engine.cluster.jobstates import alive_jobs, comments

# In Torque's columns; one job is over.
TORQUE = """
Job ID                    Name             User            Time Use S Queue
------------------------- ---------------- --------------- -------- - -----
1234567.bw                features01       someone         01:02:03 R normal
1234568.bw                features02       someone                0 Q normal
1234569.bw                features03       someone         02:29:59 C normal
1234570.bw                features04       someone         00:00:09 S normal
1234571.bw                features05       someone                0 T normal
1234572.bw                features06       someone                0 W normal
"""
# What a real OpenPBS 23.06 printed (9 was suspended by qsig); M, U, X and the long id in its form.
OPENPBS = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
9.pbs1            features01       alice             00:00:00 S workq           \n\
10.pbs1           features02       alice             00:00:00 R workq           \n\
11.pbs1           features03       alice                    0 H workq           \n\
13[].pbs1         arr              alice                    0 B workq           \n\
14.pbs1           features04       alice             00:00:01 E workq           \n\
15.pbs1           features05       alice                    0 M workq           \n\
16.pbs1           features06       alice             00:00:01 U workq           \n\
17.pbs1           features07       alice             00:00:01 X workq           \n\
18.pbs1           features08       alice             00:00:01 F workq           \n\
1266791.pbs-serve features09       alice                    0 Q workq           \n\
"""
# `qstat -a`, as which some clusters have their qstat.
WIDE = """
darwin:
                                                                                  Req'd       Elap
Job ID                  Username    Queue    Jobname          SessID  NDS   TSK   Memory  S   Time
----------------------- ----------- -------- ---------------- ------ ----- ------ ------- - ------
24817.darwin            isaac       proto    features01        38014     1      2    64gb R  00:00
24818.darwin            isaac       proto    features02          --      1      2    64gb Q    --
24819.darwin            isaac       proto    features03          --      1      2    64gb C    --
"""


@pytest.mark.parametrize('text, jobs', [
    (TORQUE, {'1234567': 'running', '1234568': 'queued', '1234570': 'suspended',
              '1234571': 'moving', '1234572': 'waiting'}),
    (OPENPBS, {'9': 'suspended', '10': 'running', '11': 'held', '13[]': 'running',
               '14': 'ending', '15': 'moved', '16': 'suspended', '1266791': 'queued'}),
    (WIDE, {'24817': 'running', '24818': 'queued'}), ('', {})])
def test_qstat_is_understood(text, jobs, tmp_path, monkeypatch):
    (tmp_path / 'text').write_text(text)
    qstat = tmp_path / 'qstat'
    qstat.write_text(f'#!/bin/sh\ncat {tmp_path}/text\n')
    qstat.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert {job: state.word for job, state in alive_jobs('torque').items()} == jobs


def test_states_of_slurm(tmp_path, monkeypatch):
    """A job whose node has failed is over, or waits again where it is to be requeued."""
    text = ('1|RUNNING|None\n2|PENDING|Priority\n3|PENDING|Dependency\n'
            '4|NODE_FAIL|NonZeroExitCode\n5|PENDING|BeginTime\n6|SUSPENDED|None\n'
            '7|PREEMPTED|None\n8|REQUEUE_HOLD|job_hold\n9|PENDING|JobHeldUser\n'
            '10|PENDING|PartitionTimeLimit\n11|COMPLETING|None\n')
    squeue = tmp_path / 'squeue'
    squeue.write_text(f"#!/bin/sh\ncat <<'E'\n{text}E\n")
    squeue.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert {job: tuple(state) for job, state in alive_jobs('slurm').items()} == {
        '1': ('running', ''), '2': ('queued', ''), '3': ('held', ''), '5': ('queued', ''),
        '6': ('suspended', ''), '8': ('requeue_hold', ''), '9': ('held', 'JobHeldUser'),
        '10': ('queued', 'PartitionTimeLimit'), '11': ('completing', '')}


def test_a_comment_that_is_no_utf_8(tmp_path, monkeypatch):
    qstat = tmp_path / 'qstat'
    qstat.write_text("#!/bin/sh\nprintf 'Job Id: 7.pbs1\\n    comment = zu gro\\337\\n'\n")
    qstat.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert comments('torque', ['7.pbs1']) == {'7.pbs1': 'zu gro\ufffd'}
