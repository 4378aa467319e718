"""States of jobs, as schedulers print them."""
import os

import pytest

from engine.cluster.jobstates import alive_jobs

# What qstat prints, shortened and from memory of its columns.
TORQUE = """
Job ID                    Name             User            Time Use S Queue
------------------------- ---------------- --------------- -------- - -----
1234567.bw                features01       someone         01:02:03 R normal
1234568.bw                features02       someone                0 Q normal
1234569.bw                features03       someone         02:29:59 C normal
"""
OPENPBS = """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
12.pbs01          features01       someone           00:00:01 H workq
13.pbs01          features02       someone           00:00:01 E workq
14[].pbs01        other            someone                  0 B workq
"""


@pytest.mark.parametrize('text, jobs', [
    (TORQUE, {'1234567': 'running', '1234568': 'queued'}),
    (OPENPBS, {'12': 'held', '13': 'ending', '14[]': 'running'}), ('', {})])
def test_qstat_is_understood(text, jobs, tmp_path, monkeypatch):
    (tmp_path / 'text').write_text(text)
    qstat = tmp_path / 'qstat'
    qstat.write_text(f'#!/bin/sh\ncat {tmp_path}/text\n')
    qstat.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert {job: state.word for job, state in alive_jobs('torque').items()} == jobs
