"""How sure predictions are, against how often they are right: temperature, ECE, reliability.

One number divides all log probabilities of a network, so that the class named stays the same
(Guo et al. 2017, "On Calibration of Modern Neural Networks"). It is found on validation clips.
"""
import numpy

from engine.errors import UserError
from engine.hdf5 import open_hdf5
from engine.reporting.counted import counted
from engine.reporting.predictionfile import each_prediction, said
from engine.weights.card import keep_in_card
from engine.reporting.scoring import ranks, score, video_log_probability

# Of what no network needs: a fit that ends here has found no end.
COLDEST, HOTTEST = 0.05, 20.0
BINS = 15


def temper(log_probabilities, temperature):
    """(..., C) log probabilities of a network at a temperature; above 1 they are less sure."""
    logs = numpy.asarray(log_probabilities, numpy.float64) / temperature
    return logs - numpy.logaddexp.reduce(logs, axis=-1, keepdims=True)


def fit_temperature(log_probabilities, labels):
    """The temperature at which these predictions have the lowest loss.

    Where all of them are right, or the loss falls on and on, nothing tells how sure to be:
    then it is 1.

    Args:
        log_probabilities: (n, C); labels: (n,) int.
    """
    from scipy import optimize  # half a second, which --help need not wait
    rows, labels = numpy.arange(len(labels)), numpy.asarray(labels)
    if not (ranks(numpy.asarray(log_probabilities), labels)[0] > 0).any():
        return 1.0

    def loss(log_temperature):
        return -temper(log_probabilities, numpy.exp(log_temperature))[rows, labels].mean()
    ends = numpy.log([COLDEST, HOTTEST])
    found = optimize.minimize_scalar(loss, bounds=ends, method='bounded',
                                     options={'xatol': 1e-6}).x
    return round(float(numpy.exp(found)), 4) if min(abs(found - ends)) > 0.01 else 1.0


def sureness(log_probabilities, labels):
    """((n,) probability of the class named, (n,) whether it is right)."""
    logs = numpy.asarray(log_probabilities)
    return numpy.exp(logs.max(axis=1)), ranks(logs, numpy.asarray(labels))[0] == 0


def reliability(log_probabilities, labels, bins=BINS):
    """[(mean probability of the class named, share right, n)] of equally wide bins of that
    probability, but for empty ones."""
    sure, right = sureness(log_probabilities, labels)
    place = numpy.clip(numpy.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    return [(float(sure[here].mean()), float(right[here].mean()), int(here.sum()))
            for here in (place == i for i in range(bins)) if here.any()]


def expected_error(log_probabilities, labels, bins=BINS):
    """Expected calibration error (Naeini et al. 2015): mean gap of sureness and share right."""
    return sum(n * abs(sure - right) for sure, right, n in
               reliability(log_probabilities, labels, bins)) / len(labels)


def read_logs(path, clips, made_by='the stage that writes it'):
    """((n, C) log probabilities by video, (n,) labels) of those clips that a file tells of."""
    with open_hdf5(path, made_by) as f:
        readout = said(f)['readout']
        pairs = [(video_log_probability(data, readout), clip.label)
                 for clip, data in each_prediction(f, clips, made_by=made_by)]
    return tuple(map(numpy.array, zip(*pairs)))


def figures(validation, test, model=None, without=None):
    """What a result's line says of validation: loss, accuracy and temperature; and the expected
    calibration error of the test clips without and with that temperature.

    Args:
        validation, test: (log probabilities, labels), as of read_logs.
        model: file of the network, whose card is to keep the temperature.
        without: label of what counts in no figure; the temperature is that of all.
    """
    seen, temperature = score(*counted(*validation, without)), fit_temperature(*validation)
    if model:
        keep_in_card(model, temperature=temperature)
    return {'validation_loss': seen['loss'], 'validation_accuracy': seen['top1'],
            'validation_n': seen['n'],
            'temperature': temperature, **errors(*counted(*test, without), temperature)}


def errors(logs, labels, temperature):
    """Expected calibration errors as they are and at a temperature, as a result's line says."""
    return {'ece': expected_error(logs, labels),
            'ece_calibrated': expected_error(temper(logs, temperature), labels)}


def in_words(found):
    """A line, 'calibration error 0.120, at temperature 1.80 0.031', of what `figures` gave, to
    stand below others; '' where it was not asked."""
    return (f'\n  calibration error {found["ece"]:.3f}, at temperature '
            f'{found["temperature"]:.2f} {found["ece_calibrated"]:.3f}'
            if 'temperature' in found else '')


def temperature_of(card, path):
    """The temperature in a model's card; 1 where there is none.

    Raises:
        UserError: it is none.
    """
    value = card.get('temperature', 1.0)
    if not isinstance(value, (int, float)) or not COLDEST <= value <= HOTTEST:
        raise UserError(f'{path}: the temperature in its card is {value!r}, not a number from '
                        f'{COLDEST:g} to {HOTTEST:g}; make it again')
    return float(value)
