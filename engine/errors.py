"""The exceptions that a person at the keyboard is meant to read."""


class UserError(Exception):
    """Something a person can mend: names the file, the reason and the next command.

    Stages print it as one line, without a traceback, and exit with 1.
    """


class Stopped(UserError):
    """A stage leaves by a signal, and says what is kept; its exit code tells which."""

    def __init__(self, message, number):
        super().__init__(message)
        self.number = number


class DecoderKilled(UserError):
    """ffmpeg was stopped from outside: what it gave of the video is not the whole."""
