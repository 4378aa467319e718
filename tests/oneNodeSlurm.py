"""A real Slurm of one node for the tests, on the loopback interface, nothing left behind.

    with OneNodeSlurm() as slurm:
        subprocess.run(['qsub', 'job.pbs'], env=slurm.env)

or, to try jobs by hand:

    eval "$(python tests/oneNodeSlurm.py)"; qsub job.pbs; squeue; kill $SLURM_TEST

Needs the Debian packages slurm-wlm, slurm-wlm-torque (qsub, qstat) and munge; root or any
one user. The three daemons stay in the foreground as children and end with this program.
"""
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue', 'scancel', 'scontrol', 'qsub',
            'qstat', 'qdel')
# Daemons stand where an ordinary user's PATH does not look.
PATH = os.environ['PATH'] + ':/usr/sbin:/sbin'

SETTINGS = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# there is no cgroup to track a job's processes in
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# as many cores as we say, whatever the machine has
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
# seconds from SIGTERM to SIGKILL, which a job that stands still waits for: Slurm's own are 30;
# more than Torque's 2, for the machine may be busy
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=normal Nodes=ALL Default=YES State=UP
"""


def missing():
    """The programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name, path=PATH)]


class OneNodeSlurm:
    """Starts Slurm on entry and stops it, with all its jobs, on exit.

    Attributes:
        env (dict): the environment in which qsub, sbatch, squeue ... talk to it.
        folder (Path): settings and logs of the daemons.
    """

    def __init__(self, cpus=2):
        self.cpus, self.daemons = cpus, []

    def __enter__(self):
        # Short, for a socket's path may have 107 letters.
        self.folder = Path(tempfile.mkdtemp(prefix='slurm'))
        self.folder.chmod(0o755)
        for name in ('state', 'spool'):
            (self.folder / name).mkdir()
        key = self.folder / 'munge.key'
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self.user = pwd.getpwuid(os.getuid()).pw_name
        settings = self.folder / 'slurm.conf'
        settings.write_text(SETTINGS.format(
            host=socket.gethostname().split('.')[0], user=self.user, folder=self.folder,
            ports=free_ports(2), cpus=self.cpus))
        self.env = dict(os.environ, PATH=PATH, SLURM_CONF=str(settings))
        try:
            self._start('munged', '-F', '-f', f'--socket={self.folder}/munge.socket',
                        f'--key-file={key}', *(f'--{name}-file={self.folder}/munged.{name}'
                                               for name in ('pid', 'log', 'seed')))
            self._start('slurmctld', '-D')
            self._start('slurmd', '-D')
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.daemons:
            self.ask('scancel', f'--user={self.user}')
            # slurmd sends the SIGKILL that follows SIGTERM, so it must not end before
            end = time.monotonic() + 30
            while self.ask('squeue', '-h').stdout and time.monotonic() < end:
                time.sleep(0.1)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *command):
        """Runs one of Slurm's commands; returns its CompletedProcess with text."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True,
                              timeout=30)

    def _start(self, name, *flags):
        with open(self.folder / f'{name}.out', 'wb') as log:
            self.daemons.append(subprocess.Popen(
                [name, *flags], env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, cwd=self.folder))

    def _wait(self):
        end = time.monotonic() + 30
        while self.ask('sinfo', '-h', '-o', '%T').stdout.strip() != 'idle':
            ended = [d.args[0] for d in self.daemons if d.poll() is not None]
            if ended or time.monotonic() > end:
                logs = [path.read_text(errors='replace')[-1500:]
                        for path in sorted(self.folder.glob('*.out'))]
                raise RuntimeError('\n'.join([f'Slurm did not start; ended: {ended}', *logs]))
            time.sleep(0.1)


def free_ports(n):
    """n port numbers that nobody listens at now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def main():
    if missing():
        sys.exit(f'not installed: {" ".join(missing())}; apt-get install slurm-wlm '
                 'slurm-wlm-torque munge')
    reader, writer = os.pipe()
    if os.fork():
        # The child serves; this process hands over what the shell needs and ends.
        os.close(writer)
        with os.fdopen(reader) as f:
            print(f.read(), end='')
        return
    os.close(reader)
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with OneNodeSlurm() as slurm:
        os.write(writer, (f'export SLURM_CONF={slurm.env["SLURM_CONF"]} '
                          f'SLURM_TEST={os.getpid()}\n').encode())
        os.close(writer)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        while True:
            signal.pause()


if __name__ == '__main__':
    main()
