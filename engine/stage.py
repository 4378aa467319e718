"""Running a stage: its flags, its device, its exit code, and what it says of itself."""
import codecs
import contextlib
import io
import os
import platform
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy

from engine import locks
from engine.arguments import Parser, fold, whole
from engine.errors import DecoderKilled, Stopped, UserError
from engine.files import remove_temporaries
from engine.variants import FUSIONS, LAYERS, STREAMS

HERE = Path(__file__).resolve().parent.parent  # of the scripts
# What decides how a trained model is tested; all other settings belong to its training.
TEST_FLAGS = ('inference', 'test_steps', 'reverse_too', 'readout')
# What says where or how a run was made, not what it computed.
NOT_SETTINGS = ('root', 'name', 'split', 'seed', 'tiny', 'small', 'restart', 'device', 'fast',
                'workers', 'communicator', 'memory', 'without', 'function', 'fold', 'baseline',
                'beside')
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds that a stage has to leave by itself: a scheduler's SIGKILL may come after 2.
PATIENCE = 1.2


def new_parser(doc):
    """Returns an ArgumentParser with what every stage takes; `doc` is the script's docstring."""
    parser = Parser(description=doc)
    data = parser.add_argument_group('data')
    data.add_argument('--root', type=Path, default=Path('.'), metavar='DIR',
                      help='folder under which all files stand (default: here)')
    data.add_argument('--split', type=int, default=1, choices=(1, 2, 3),
                      help='which of the official train/test lists (default: 1)')
    data.add_argument('--seed', type=whole(0), default=0,
                      help='start of every random choice (default: 0)')
    data.add_argument('--tiny', action='store_true',
                      help='settings that end in seconds, to see the stage work; '
                           'flags given beside it still count')
    return parser


def add_variant(parser, *fields):
    """Adds those of --stream, --fusion, --layer and --fold that a stage tells apart."""
    group = parser.add_argument_group('variant')
    for field, values, text in (
            ('stream', STREAMS, 'what the network sees: the frames, or the optical flow that '
                                'opticalFlow.py makes of them'),
            ('fusion', FUSIONS, 'how it joins frames in time (Karpathy et al. 2014)'),
            ('layer', LAYERS, 'what is saved of a frame: fc7, 10 GB of the whole of UCF-101, or '
                              'the maps of the last convolution after pooling (pool5), 125 GB, or '
                              '5 GB of one frame a second (saveFeatures --step 25)')):
        if field in fields:
            group.add_argument(f'--{field}', choices=values, default=values[0],
                               help=f'{text} (default: {values[0]})')
    if 'fold' in fields:
        group.add_argument('--fold', type=fold, metavar='K/N',
                           help='hold out the K-th of N parts of the groups; its files have names '
                                'in ..._foldKofN. N as large as the number of groups leaves one '
                                'out at a time (default: no folds)')


def add_device(parser, convolutions=True):
    """Adds --device, and --no-fast where there are convolutions, to a stage that computes."""
    group = parser.add_argument_group('device')
    group.add_argument('--device', default='-1', metavar='N',
                       help='GPU number, or -1 for the CPU (default: -1)')
    if convolutions:
        group.add_argument('--no-fast', dest='fast', action='store_false',
                           help="Chainer's own convolutions in place of engine/fast/conv.py")


def parse(parser, argv=None, small=None, **tiny):
    """Parses; with --tiny the defaults given by name here take the place of the usual ones, and
    before with --small, of a stage that has it, those in the dict `small`."""
    argv = sys.argv[1:] if argv is None else argv
    given = parser.parse_known_args(argv)[0]
    if small and given.small:
        parser.set_defaults(**small)
    if given.tiny:
        parser.set_defaults(**tiny)
    return parser.parse_args(argv)


def get_device(name):
    """Returns the chainer.Device for --device, made current.

    Raises:
        UserError: a GPU is asked for and none answers.
    """
    import engine.chainer_today  # noqa: F401  (before chainer)
    import chainer
    name = str(name)
    if name in ('-1', '@numpy', 'cpu'):
        device = chainer.get_device('@numpy')
    else:
        name = name.replace('@cupy:', '')
        try:
            # CuPy imports without CUDA's libraries, and Chainer finds it without a GPU: ask both,
            # and the driver.
            import cupy
            found = cupy.cuda.runtime.getDeviceCount()
            chainer.backends.cuda.check_cuda_available()
        except Exception as error:
            raise UserError(f'--device {name}: no GPU to use ({" ".join(str(error).split())}); '
                            'pip install -r requirements-gpu.txt, or --device -1') from None
        if not name.isdigit() or int(name) >= found:
            raise UserError(f'--device {name}: this machine has GPUs 0 to {found - 1}')
        device = chainer.get_device(f'@cupy:{name}')
    try:
        device.use()
    except RuntimeError as error:  # CUDA's first call that needs the card's memory
        raise UserError(f'--device {name}: the GPU takes no more programs ({error}); see '
                        'nvidia-smi, or give --device -1') from None
    return device


def run(main, patience=PATIENCE):
    """Runs a stage and ends the program with its exit code.

    `main` returns it: None or 0 done, 3 done but for the failures it named. A UserError, or an
    OSError that nobody has named better, becomes one line and 1, Ctrl-C 130, SIGTERM 143 and SIGHUP
    129 at once and in `patience` at the latest, unless `main` handles them in its own way. Where
    standard output fails, what the stage had to say is lost, so it never ends with 0: with 141, as
    by SIGPIPE, if its reader (head, less) has gone, else with 1.
    """
    _open_output()
    _leave_in_time(patience)
    for number in stopping():
        signal.signal(number, leave)
    try:
        code = _code_of(main)
    finally:  # where a signal came before what was begun could be noted
        remove_temporaries()
    sys.exit(code)


_codes = []  # with which exit code the stage leaves, once that is settled
_in_time = []  # the handlers that a stage's patience is for


def stopping():
    """The signals that are to stop this program; a SIGHUP that nohup had it ignore stays so."""
    return [number for number in STOPPING if number != signal.SIGHUP
            or signal.getsignal(number) != signal.SIG_IGN]


def stopped_how(number):
    """What a stage says first of a signal that stopped it."""
    return ('stopped by hand' if number == signal.SIGINT else
            f'stopped by {signal.Signals(number).name}'
            + ' (its terminal has gone)' * (number == signal.SIGHUP))


def leave(number, _=None):
    """Handler of the signals that stop: ends what the main thread does by an exception, once."""
    if not _codes:
        _codes.append(128 + number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)


@contextlib.contextmanager
def handling(handler):
    """Lets handler(number, frame) hear the signals that stop; the program still ends in time."""
    old = {number: signal.signal(number, handler) for number in stopping()}
    _in_time.append(handler)
    try:
        yield
    finally:
        _in_time.remove(handler)
        for number, other in old.items():
            signal.signal(number, other)


@contextlib.contextmanager
def uncut():
    """Lets a block come to its end before a signal that stops has its effect."""
    heard = []
    with handling(lambda number, _: heard.append(number)):
        yield
    if heard:
        leave(heard[0])


def _leave_in_time(patience):
    """Starts a thread that ends the program `patience` after a signal, if it is there still.

    Python's handlers wait for the main thread, which may be in a long product; and an exception
    there waits for other threads, for ffmpeg, for a disk; in a finalizer it is lost.
    """
    heard, said = os.pipe()
    os.set_blocking(said, False)
    signal.set_wakeup_fd(said, warn_on_full_buffer=False)

    def listen():
        while number := os.read(heard, 1)[0]:
            if number in STOPPING and signal.getsignal(number) in (leave, *_in_time):
                time.sleep(patience)
                end_now(_codes[0] if _codes else 128 + number,
                        f'stopped in the middle of work; {same_command()}', sys.stderr)
    threading.Thread(target=listen, daemon=True).start()

    def ignored(lost):
        if not (_codes and lost.exc_type in (KeyboardInterrupt, SystemExit)):
            sys.__unraisablehook__(lost)
    sys.unraisablehook = ignored


def end_now(code, words, output):
    """Ends the program: what is finished stands there in whole files.

    Work that still goes on is not waited for, nor is a file system that may hang.
    """
    def tell():
        with contextlib.suppress(OSError):  # nobody reads it any more
            print(words, file=output, flush=True)
    end = time.monotonic() + 0.3
    # None of them waits for another: a reader or a disk may be slow.
    last_things = [threading.Thread(target=thing, daemon=True)
                   for thing in (remove_temporaries, locks.release_all, tell)]
    for thread in last_things:
        thread.start()
    for thread in last_things:
        thread.join(max(0, end - time.monotonic()))
    os._exit(code)


def same_command():
    """What a stage that was stopped says of going on."""
    return ('what is finished is kept, and the same command'
            + ' without --restart' * ('--restart' in sys.argv) + ' goes on from there')


class _Output(io.FileIO):
    """Standard output that remembers why it took no more, whichever thread wrote into it."""

    failure = None

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            _Output.failure = error
            raise


def _as_it_can(error):
    """Error handler of codecs: a name that is no text as its bytes, what is unknown as \\x.. ."""
    try:
        if not error.encoding.startswith(('utf-16', 'utf-32')):  # whose letters are no bytes
            return codecs.lookup_error('surrogateescape')(error)
    except UnicodeEncodeError:
        pass
    return codecs.backslashreplace_errors(error)


codecs.register_error('as it can', _as_it_can)


def _open_output():
    """Lets standard output and errors take every character; the former is an _Output then."""
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would get its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, 'w' if number else 'r', closefd=False))
    if sys.stderr is sys.__stderr__:
        sys.stderr.reconfigure(errors='as it can')
    if sys.stdout is sys.__stdout__:
        old, output = sys.stdout, _Output(1, 'w', closefd=False)
        old.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(output) if isinstance(old.buffer, io.BufferedWriter) else output,
            old.encoding, 'as it can', line_buffering=old.line_buffering,
            write_through=old.write_through)


def _of_gpu(error):
    """What is said of an error if it is a GPU's, else None."""
    if not type(error).__module__.startswith(('cupy', 'cudnn')):
        return None
    text = ' '.join(str(error).split())
    if isinstance(error, MemoryError) or 'out of memory' in text or 'ALLOC_FAILED' in text:
        return f"error: the GPU's memory is full ({text}); lower --batch, or see with nvidia-smi " \
               'what else is on it'
    return f'error: the GPU fails ({text}); try --device -1, and python -m bench.gpu --check'


def _code_of(main):
    """Calls main(); returns its exit code, after a last word where it did not do all."""
    code = said = None
    told_to = False  # leave, by a signal: other workers have it as well
    try:
        code = main()
        _codes.append(code or 0)
    except SystemExit as leaving:  # --help, wrong flags, a signal
        code = leaving.code
        if code in [128 + number for number in STOPPING]:
            said, told_to = f'{stopped_how(code - 128)}; {same_command()}', True
    except KeyboardInterrupt:
        code, said, told_to = 130, f'{stopped_how(signal.SIGINT)}; {same_command()}', True
    except MemoryError as error:
        code, said = 1, _of_gpu(error) or (
            f'error: not enough memory ({error or "the machine gives no more"}); end other '
            'programs, or see "Out of memory?" in docs/troubleshooting.md')
    except (OSError, UserError) as error:
        # What writes files may have taken a print's failure in between for its own.
        lost = _Output.failure is not None and _Output.failure in (error, error.__cause__)
        if lost:
            code, said = _loss()
        elif isinstance(error, Stopped):
            code, said = 128 + error.number, str(error)
        elif isinstance(error, DecoderKilled) and _signal_comes():
            code, said, told_to = _codes[0], f'stopped by a signal; {same_command()}', True
        elif isinstance(error, UserError):
            code, said = 1, f'error: {error}'
        else:
            where = f'{error.filename}: ' * (error.filename is not None)
            code, said = 1, (f'error: {where}{error.strerror or error}; see to that, then run the '
                             'command again')
    except RuntimeError as error:
        said = _of_gpu(error)
        if not said and not str(error).startswith('Symlink loop'):  # before 3.13 pathlib's own
            raise
        code, said = 1, said or f'error: {error}; see to that, then run the command again'
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if _Output.failure:
        if code in (None, 0, 3):
            code, said = _loss()
        # Python's own flush at the end must not meet it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if said:
        if not told_to and 'engine.learning.workers' in sys.modules:
            sys.modules['engine.learning.workers'].abort(said)
        with contextlib.suppress(OSError):
            print(said, file=sys.stderr, flush=True)
    return code


def _signal_comes():
    """Whether a signal that stopped ffmpeg is on its way to us, too: one process has it first."""
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        for _ in range(20):
            if not _codes:
                time.sleep(0.05)
    return bool(_codes)


def _loss():
    """(exit code, last word) of a stage whose standard output failed."""
    if isinstance(_Output.failure, BrokenPipeError):
        return 128 + signal.SIGPIPE, ('stopped, as nobody reads the output any more; the same '
                                      'command goes on')
    return 1, (f'error: standard output cannot be written: {_Output.failure.strerror}; the same '
               'command goes on')


def check_root(root):
    """Refuses a root that is not there, before anything in it is missed or made."""
    if not Path(root).is_dir():
        raise UserError(f'{root}: no such folder')


def settings_of(args):
    """The arguments that decide a result, as JSON values."""
    return {key: [str(v) for v in value] if isinstance(value, (list, tuple))
            else str(value) if isinstance(value, Path) else value
            for key, value in sorted(vars(args).items()) if key not in NOT_SETTINGS}


def print_settings(args):
    """Opens a run's log: the command, the code's commit, the settings."""
    print(command_line(), f'(commit {commit()})')
    words = (f'{key}={value}' for key, value in sorted(vars(args).items()) if key != 'function')
    print(textwrap.fill(' '.join(words), 80, break_long_words=False, break_on_hyphens=False),
          flush=True)


def command_line():
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(HERE)) if script.is_relative_to(HERE) else script.name
    return shlex.join(['python', name] + sys.argv[1:])


def commit():
    """Short commit of this code, with -dirty if files differ from it; 'unknown' outside git."""
    try:
        return subprocess.run(['git', '-C', str(HERE), 'describe', '--always', '--dirty'],
                              capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def tell_kernel(network):
    """Prints by what a network is computed where it is now; returns it for `provenance`."""
    kernel = network.kernel()
    print(f'computed by {kernel}', flush=True)
    return kernel


def provenance(args, settings=None, kernel=None):
    """What every model's card tells of its making; `settings` default to those of args.

    `kernel` is of `tell_kernel`.
    """
    import engine.chainer_today  # noqa: F401  (before chainer)
    import chainer
    return {'seed': args.seed, 'settings': settings_of(args) if settings is None else settings,
            'commit': commit(), **({'kernel': kernel} if kernel else {}),
            'versions': {'python': platform.python_version(), 'numpy': numpy.__version__,
                         'chainer': chainer.__version__}}
