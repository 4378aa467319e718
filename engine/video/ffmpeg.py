"""Starting ffmpeg (the binary that imageio-ffmpeg brings), ending it, and what its log says.

A video may be anybody's, so whatever it holds, ffmpeg opens that one file and nothing else:
no playlist, no script that joins files, no address. When the program that started it dies,
even of SIGKILL, ffmpeg finds its pipe closed and ends.
"""
import contextlib
import os
import re
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import imageio_ffmpeg

from engine.errors import DecoderKilled, UserError
from engine.files import SPECIAL

# Demuxers that read one file, which holds pictures itself; not among them are those that open
# what a file names (hls, dash, concat, sdp, imf, avisynth, svg ...) and that read texts.
FORMATS = ','.join('''
    3dostr 4xm amv anm apng argo_brp asf asf_o avi avs avs2 avs3 bethsoftvid bfi bink c93 cavsvideo
    cdxl cine dhav dirac dnxhd dsicin dv dxa ea evc film_cpk filmstrip flic flv gdv gif gxf h261
    h263 h264 hevc hnm idcin ifv ipmovie ipu iv8 ivf ivr jpegxl_anim jv kux live_flv lmlm4 lvf lxf
    m4v matroska mjpeg mjpeg_2000 mm mods moflex mov mpeg mpegts mpegvideo mpjpeg msnwctcp mtv mv
    mvi mxf mxg nc nsv nut nuv obu ogg paf pmp psxstr pva r3d rl2 rm roq rpl ser smjpeg smk smush
    swf thp tiertexseq tmv ty vc1 vc1test vividas vivo vmd vvc wc3movie webp_anim wsvqa wtv xmv
    yop yuv4mpegpipe bmp_pipe dpx_pipe exr_pipe gif_pipe j2k_pipe jpeg_pipe jpegls_pipe
    jpegxl_pipe pam_pipe pbm_pipe pgm_pipe png_pipe ppm_pipe qoi_pipe tiff_pipe
    webp_pipe'''.split())
_running = set()


class VideoError(UserError):
    """A video that gives no frame; the text names it and says why."""


class Done(NamedTuple):
    """What an ffmpeg has left: its exit code, the bytes it wrote into its pipe, its log."""
    code: int
    written: int
    log: bytes


# ------------------------------------------------------------------------- starting

def command(*words):
    """The words of a command: ffmpeg, how it talks, and `words`."""
    return [program(), '-nostdin', '-hide_banner', '-nostats', '-loglevel',
            'level+info', *map(str, words)]


def program():
    """The path of ffmpeg; UserError where there is none that runs."""
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(f'no video can be read: {error} pip install -r requirements.txt brings '
                        'one') from None


def opened(path, *options):
    """The words that open a video as an input of ffmpeg, whoever made it.

    Raises VideoError for a pipe or a device, which would be waited for.
    """
    refuse_pipes(path)
    return ['-protocol_whitelist', 'file', '-format_whitelist', FORMATS, *options, '-i',
            f'file:{path}']


def refuse_pipes(path):
    """Raises VideoError for what is there and is neither a file nor a folder."""
    if not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
        raise VideoError(f'{path}: {SPECIAL}')


def start(words, **options):
    """Starts a command; returns its Popen. `ended` must be called with it."""
    process = subprocess.Popen(words, **options)
    _running.add(process)
    return process


def ended(process):
    """Kills a process of `start` if it still runs, and closes its pipes."""
    process.kill()
    process.wait()
    _running.discard(process)
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def run(words, path, **options):
    """Runs a command, at work on `path`, to its end; returns its Done.

    What it writes into pipe:1 is counted, and not kept. Where it goes on for long, it must
    write something there, or it would outlive us.

    Raises:
        VideoError: it crashed.
        DecoderKilled: a signal has ended it.
    """
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads would stop it
        process = start(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                        bufsize=0, **options)
        try:
            written = 0
            while data := process.stdout.read(1 << 20):
                written += len(data)
            process.wait()
        finally:
            ended(process)
        errors.seek(0)
        log = errors.read()
    check_alive_to_the_end(process.returncode, log, path)
    return Done(process.returncode, written, log)


@contextlib.contextmanager
def readers(n):
    """A pool of n threads that read videos. Where an exception leaves the block, what has not
    begun never does, and every ffmpeg at work is ended: nobody waits for long films."""
    pool = ThreadPoolExecutor(n)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(_running):
            process.kill()
        raise
    finally:
        pool.shutdown()


# --------------------------------------------------------------------------- ending

# What ffmpeg says when SIGTERM or Ctrl-C has ended it; its code, 255, may mean a plain error.
STOPPED = re.compile(rb'^(?:\[info\] Exiting normally, received signal \d'
                     rb'|.*Received > \d+ system signals, hard exiting)', re.MULTILINE)
KILLED = {-number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)}


def check_alive_to_the_end(code, log, path):
    """Raises what an ffmpeg that ended with this exit code, at work on `path`, did not come to
    its end by."""
    # ffmpeg takes SIGTERM and Ctrl-C for an order to end well after a part of the frames;
    # schedulers and terminals send these to every process of a job.
    if code in KILLED or code > 0 and STOPPED.search(log):
        raise DecoderKilled(f'{path}: ffmpeg was stopped from outside before the end; '
                            'run the command again')
    if code < 0:
        raise VideoError(f'{path}: ffmpeg crashed on it ({signal.Signals(-code).name})')


NO_VIDEO = 'by its content it is no video'
# Who complains of what is written, not of what is read.
WRITERS = re.compile(r'\[(out#|[avs]ost#|[avs]?f#|null |rawvideo |matroska @|mp4 @|sws|auto_)')


def complaint_of(log, path, writing=False, but=()):
    """The first error in ffmpeg's log (bytes) of reading, or else of writing a file, without
    addresses and the file's name; None if there is none. What decoders say whose names begin
    with one of `but` does not count."""
    other = None
    for line in log.decode(errors='replace').splitlines():
        # "[h264 @ 0x55..] [error] text", or several such brackets
        found = re.match(r'^((?:\[[^]]*\] )*)\[(?:error|fatal)\] (.*)', line)
        if not found:
            continue
        if found[1][1:].lower().replace('_', '').startswith(but):
            continue
        text = found[2].replace(f'file:{path}', '').strip(' :.')
        if text.startswith('Format not on whitelist'):
            text = NO_VIDEO
        if bool(WRITERS.match(found[1])) == writing:
            return text
        other = other or text
    return other if writing else None
