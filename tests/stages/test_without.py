"""--without CLASS: figures of the other classes' clips, against those worked out by hand."""
import csv
import sys

import numpy
import pytest

import confusion
import featureSet
import helperFunctions as hf
import results
import singleFrameAccuracy
from engine.errors import UserError
from engine.reporting import calibration
from engine.reporting.predictionfile import read_predictions, write_predictions
from engine.weights.card import read_card
from featureSet import lines_of


def shares(label):
    """What is said of a clip of Archery, Bowling, Diving: sure, taken for Diving, sure."""
    return ([0.7, 0.1, 0.2], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6])[label]


@pytest.fixture
def root(tmp_path):
    lists = featureSet.make_features(tmp_path)
    for kind, clips in (('test', lists.test), ('validation', hf.hold_out_groups(lists.train)[1])):
        write_predictions(tmp_path / f'{kind}Predictions1024.hdf5', (
            (clip.name, [shares(clip.label)] * 2) for clip in clips), lists.classes, 'frames', 1)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def run(script, root, *flags):
        monkeypatch.setattr(sys, 'argv', [f'{script.__name__}.py', '--root', str(root),
                                          *map(str, flags)])
        code = script.main() or 0
        told = capsys.readouterr()
        return code, told.out + told.err
    return run


def test_frames(root, run):
    run(singleFrameAccuracy, root)
    run(singleFrameAccuracy, root, '--without', 'Diving')
    run(singleFrameAccuracy, root, '--without', 'Archery')
    # 4 test clips of 2 frames a class; of 12 clips 8 are right, of those but for Diving 4 of 8
    assert [(line['unit'], line['n'], line['top1'], line['settings'].get('without'))
            for line in lines_of(root)] == [
        ('frame', 24, pytest.approx(2 / 3), None), ('video', 12, pytest.approx(2 / 3), None),
        ('frame', 16, 0.5, 'Diving'), ('video', 8, 0.5, 'Diving'),
        ('frame', 16, 0.5, 'Archery'), ('video', 8, 0.5, 'Archery')]
    videos = [line for line in lines_of(root) if line['unit'] == 'video']
    # the temperature is that of all classes; the error that of the clips that count
    assert len({line['temperature'] for line in videos}) == 1
    assert videos[1]['ece'] == pytest.approx((abs(0.7 - 1) + abs(0.6 - 0)) / 2, abs=1e-6)
    # of Archery and Bowling: 1 and 0 of recall, 1 and 0 of F1
    assert videos[1]['balanced_accuracy'] == videos[1]['macro_f1'] == 0.5
    assert videos[1]['validation_accuracy'] == 0.5


def test_results_and_confusion_say_the_same_of_the_files(root, run):
    run(singleFrameAccuracy, root)
    run(singleFrameAccuracy, root, '--without', 'Diving')
    code, said = run(results, root, '--without', 'Diving', '--csv', root / 'table.csv')
    with open(root / 'table.csv', encoding='utf-8') as f:
        row, = csv.DictReader(f)
    assert code == 0 and (row['n'], row['top1']) == ('8', '50.0') and 'of Diving' in said
    line = lines_of(root)[-1]
    assert row['ECE'] == f'{line["ece"]:.3f}' and row['ECE cal.'] == f'{line["ece_calibrated"]:.3f}'
    run(confusion, root, '--without', 'Diving')
    with open(root / 'confusion_frames-without-Diving.csv', encoding='utf-8') as f:
        rows = {row['class']: row for row in csv.DictReader(f)}
    assert [rows[name]['n'] for name in featureSet.CLASSES] == ['4', '4', '0']
    assert rows['Bowling']['most_taken_for'] == 'Diving' and rows['Diving']['said'] == '4'


def test_rnn(packed, run, run_rnn):
    run_rnn(packed, '--name', 'a')
    run_rnn(packed, '--name', 'b', '--without', 'Bowling')
    whole, part = lines_of(packed)
    assert (part['n'], whole['n']) == (8, 12)
    assert part['settings'] == {**whole['settings'], 'without': 'Bowling'}
    assert part['temperature'] == whole['temperature'] == (
        read_card(packed / 'b.model')['temperature'])
    lists = hf.read_lists(packed)
    found, _ = read_predictions(packed / 'b_testPredictions.hdf5', lists.test)
    assert len(found) == 12  # all are predicted
    logs, labels = calibration.read_logs(packed / 'a_testPredictions.hdf5', lists.test)
    counts = labels != 1
    assert part['top1'] == pytest.approx(
        numpy.mean(logs[counts].argmax(axis=1) == labels[counts]))
    assert 'without=Bowling' in run(results, packed)[1]


@pytest.mark.parametrize('script', [singleFrameAccuracy, results, confusion])
def test_a_class_that_is_none_is_named(root, run, script):
    run(singleFrameAccuracy, root)
    try:
        code, said = run(script, root, '--without', 'diving')
    except UserError as error:
        code, said = 1, str(error)
    assert code and '--without diving: none of the classes, Archery, Bowling, Diving' in said


def test_before_a_training(packed, run_rnn):
    with pytest.raises(UserError, match='--without other: none of the classes'):
        run_rnn(packed, '--without', 'other')
    assert not (packed / 'RNN.training').exists()
