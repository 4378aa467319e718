"""The exceptions that a person at the keyboard is meant to read."""


class UserError(Exception):
    """Something a person can mend: names the file, the reason and the next command.

    Stages print it as one line, without a traceback, and exit with 1.
    """


class DecoderKilled(UserError):
    """ffmpeg was stopped from outside: what it gave of the video is not the whole."""
