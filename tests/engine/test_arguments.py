"""Numbers on a command line: what makes no sense is refused as it is parsed, by every script."""
import argparse
import sys

import pytest

import engine.chainer_today  # noqa: F401  (before chainer)
from engine import arguments
from engine.errors import UserError
from test_help import SCRIPTS


@pytest.mark.parametrize('kind, text, why', [
    (arguments.whole(1), '0', 'at least 1'), (arguments.whole(0), '-1', 'at least 0'),
    (arguments.whole(0), '1.5', 'not a whole number'),
    (arguments.whole(0), str(2 ** 32), 'at most 4294967295'),
    (arguments.whole(1, 9), '10', 'at most 9'),
    (arguments.positive, '0', 'above 0'), (arguments.not_negative, '-1e-9', 'at least 0'),
    (arguments.share, '1', 'below 1'), (arguments.real(most=3), '3.1', 'at most 3'),
    *((arguments.real(), text, 'not finite') for text in ('nan', 'inf', '-inf', '1e999')),
    (arguments.real(), 'much', 'not a number')])
def test_what_is_refused(kind, text, why):
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        kind(text)


def test_what_is_taken():
    assert arguments.whole(0)('0') == 0 and arguments.whole(2)('7') == 7
    assert arguments.share('0') == 0 and arguments.share('.999') == 0.999
    assert arguments.not_negative('0') == 0 and arguments.positive('1e-30') == 1e-30
    assert arguments.real(above=0, most=1)('1') == 1


@pytest.mark.parametrize('script', [*SCRIPTS, 'demo.py clips'])
def test_no_script_takes_a_flag_abbreviated(script, tmp_path, monkeypatch, capsys):
    """--res would be --restart, which begins anew, as --hel is --help."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [*script.split(), '--hel'])
    with pytest.raises((SystemExit, UserError)) as stopped:
        __import__(script.split('.')[0]).main()
    assert getattr(stopped.value, 'code', 1) and not capsys.readouterr().out


@pytest.mark.parametrize('script, flags', [
    ('rnn', ['--batch', '0']), ('rnn', ['--seed', '-1']), ('rnn', ['--patience', '-1']),
    ('frameBasedTrain', ['--workers', '0']), ('frameBasedTrain', ['--validation-every', '1']),
    ('saveFeatures_1024', ['1', '--step', '0']), ('saveFeatures_1024', ['0']),
    ('saveFeatures_1024', ['1', '--margin', 'nan']), ('opticalFlow', ['1', '--bound', '0']),
    ('opticalFlow', ['1', '--bound', 'inf']),
    ('sweep', ['runs.txt', '--parallel', '0']), ('sweep', ['runs.txt', '--seeds', '-1']),
    ('combine', ['a', 'b', '--weights', '1', '-1']),
    ('combine', ['a', 'b', '--weights', 'nan', '1']),
    ('convertWeights', ['x', '--hidden', '0']), ('convertWeights', ['x', '--input-size', '-32']),
    ('predict', ['x', '--seconds', '-1']), ('predict', ['x', '--top', '0']),
    ('makeSplit', ['--test-share', '1', '--clips', 'x']), ('confusion', ['--top', '0']),
    ('report', ['--examples', '-1']), ('report', ['--top', '0']),
    ('generate_pbs', ['--ppn', '0']), ('generate_pbs', ['--gpus', '-1']),
    ('demo', ['clips', '--seed', '-1']), ('demo', ['pretrain', '--epochs', '0'])])
def test_numbers_out_of_range_are_refused_at_once(script, flags, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [f'{script}.py', *flags])
    with pytest.raises(SystemExit) as stopped:
        __import__(script).main()
    assert stopped.value.code == 2
    assert f"error: argument {next((w for w in flags if w[:2] == '--'), 'part')}: " in (
        capsys.readouterr().err)
