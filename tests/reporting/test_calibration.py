"""Temperature, expected calibration error and reliability, against cases made by hand."""
import os

import engine.chainer_today  # noqa: F401  (before chainer)
import numpy
import pytest

from VGGNet import VGGNet
from helperFunctions import Clip
from engine.errors import UserError
from engine.reporting import calibration
from engine.reporting.readout import Method
from engine.reporting.runs import Run
from engine.reporting.surenesssection import sureness_section
from engine.weights.card import keep_in_card, read_card, weights_digest
from engine.weights.modelfile import load_weights, save_model


def drawn(temperature, n=4000, classes=5, seed=0):
    """Log probabilities that are true, and the labels drawn by them; told too sure by a factor."""
    random = numpy.random.RandomState(seed)
    logs = 1.5 * random.randn(n, classes)
    logs -= numpy.logaddexp.reduce(logs, axis=1, keepdims=True)
    labels = [random.choice(classes, p=numpy.exp(row)) for row in logs]
    return calibration.temper(logs, 1 / temperature), numpy.array(labels)


@pytest.mark.parametrize('temperature', [0.5, 1, 3])
def test_the_temperature_that_was_taken_away_is_found(temperature):
    logs, labels = drawn(temperature)
    assert calibration.fit_temperature(logs, labels) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_has_a_lower_loss():
    logs, labels = drawn(2, n=60)

    def loss(temperature):
        scaled = numpy.exp(logs / temperature)
        return -numpy.log(scaled[range(60), labels] / scaled.sum(axis=1)).mean()
    found = calibration.fit_temperature(logs, labels)
    assert loss(found) <= min(loss(t) for t in numpy.linspace(0.3, 6, 500)) + 1e-7


def test_a_temperature_changes_no_rank():
    logs, _ = drawn(1, n=200)
    for temperature in (0.2, 4):
        tempered = calibration.temper(logs, temperature)
        assert (tempered.argsort(axis=1) == logs.argsort(axis=1)).all()
        assert numpy.exp(tempered).sum(axis=1) == pytest.approx(1)


def test_where_all_are_right_nothing_tells_how_sure_to_be():
    logs = numpy.log([[0.6, 0.4], [0.3, 0.7]])
    assert calibration.fit_temperature(logs, [0, 1]) == 1
    # and where wrong ones are as sure as right ones, the loss falls on and on
    assert calibration.fit_temperature(numpy.log([[0.9, 0.1]] * 4), [0, 1, 0, 1]) == 1


def test_expected_error_by_hand():
    # 0.9 twice, one right: gap 0.4; 0.6 once, right: gap 0.4; 0.55 once, wrong: gap 0.55
    logs = numpy.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.45, 0.55]])
    labels = [0, 1, 0, 0]
    assert calibration.expected_error(logs, labels, bins=20) == pytest.approx(
        (2 * 0.4 + 0.4 + 0.55) / 4)
    # in two bins, all are in the upper one: mean 0.7375, half right
    assert calibration.expected_error(logs, labels, bins=2) == pytest.approx(0.2375)
    assert calibration.reliability(logs, labels, bins=2) == [
        (pytest.approx(0.7375), pytest.approx(0.5), 4)]


def test_what_is_told_after_calibration_is_nearer_to_the_truth():
    found = calibration.figures(drawn(3, seed=1), drawn(3, seed=2))
    assert found['ece'] > 0.15 > 0.04 > found['ece_calibrated']


@pytest.mark.parametrize('value', ['2', float('nan'), 0, -1, None])
def test_a_temperature_that_is_none_is_refused(value):
    with pytest.raises(UserError, match='temperature'):
        calibration.temperature_of({'temperature': value}, 'RNN.model')
    assert calibration.temperature_of({}, 'RNN.model') == 1


@pytest.mark.parametrize('name', ['net.model', 'net.h5'])
def test_a_temperature_goes_into_the_card_and_changes_no_weight(tmp_path, name):
    path = tmp_path / name
    network = VGGNet((8, 8, 8, 8, 8), 32, 10, 32)
    save_model(path, network, {'kind': 'VGG', 'classes': ['ä']})
    digest = weights_digest(path)
    os.utime(path, (10 ** 9, 10 ** 9))
    keep_in_card(path, temperature=1.5)
    assert path.stat().st_mtime == 10 ** 9  # make would make anew what was made with it
    assert read_card(path) == {'kind': 'VGG', 'classes': ['ä'], 'temperature': 1.5}
    assert weights_digest(path) == digest
    again = VGGNet((8, 8, 8, 8, 8), 32, 10, 32)
    load_weights(path, again)
    assert all((a.array == b.array).all() for a, b in zip(network.params(), again.params()))
    before = path.stat().st_mtime_ns
    keep_in_card(path, temperature=1.5)
    assert path.stat().st_mtime_ns == before


def test_the_report_draws_how_sure_networks_are():
    logs, labels = drawn(3, n=200)
    clips = [Clip(f'c{i}', '', int(label), '', None) for i, label in enumerate(labels)]
    run = Run('RNN', Method('LSTM', None, clips, [], {}),
              {clip.name: numpy.exp(row) for clip, row in zip(clips, logs)}, {}, {}, 'mean')
    assert sureness_section([run], {'RNN': {}}) == ''
    page = sureness_section([run], {'RNN': {'temperature': 3.0}})
    assert page.count('<svg class="chart"') == 2
    for said in (logs, calibration.temper(logs, 3)):
        assert f'{calibration.expected_error(said, labels):.3f}' in page
