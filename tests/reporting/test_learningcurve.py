"""The learning curve, by hand."""
import math

import pytest

from engine.reporting import learningcurve


def line(top1, share=None, seed=0, **more):
    settings = {'layers': 1} if share is None else {'layers': 1, 'train_share': share}
    return {'method': 'LSTM', 'split': 1, 'unit': 'video', 'n': 50, 'top1': top1, 'seed': seed,
            'root': 'here', 'settings': settings, **more}


RUNS = [line(0.9, seed=1), line(0.8), line(0.5, 0.1, train_groups=4, train_clips=9),
        line(0.6, 0.1, 1, train_groups=4, train_clips=11), line(0.7, 0.1, 2, validation_accuracy=1)]


def test_points_are_means_over_seeds_with_students_interval():
    curve, = learningcurve.curves([*RUNS, line(0.1, unit='frame'), line(0.2, test_only=True),
                                   line(None, 0.3), line(0.3, 'half')])
    assert (curve.title, [point.share for point in curve.points]) == ('LSTM', [0.1, 1.0])
    few, every = curve.points
    assert (few.seeds, few.groups, few.clips, few.validation) == (3, 4, 10, 1)
    # t of 2 degrees of freedom is 4.3027 at 97.5 %
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert (few.top1, few.deviation) == (pytest.approx(0.6), pytest.approx(0.1))
    assert few.interval == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)
    assert every.interval == (pytest.approx(0.85 - 12.7062 * 0.05, abs=1e-4), 1.0)  # not above 1
    assert learningcurve.rows([curve])[0] == [
        'LSTM', '1', '-', '10', '4', '10', '3', '60.0', '10.0', '35.2', '84.8', '100.0']


def test_a_seed_run_twice_counts_once_and_recipes_and_folds_stay_apart():
    again = [*RUNS, line(0.95, 0.1)]  # the later line of seed 0
    assert learningcurve.curves(again)[0].points[0].top1 == pytest.approx((0.95 + 0.6 + 0.7) / 3)
    others = [{**run, 'settings': {**run['settings'], 'layers': 2}} for run in RUNS]
    folds = [{**run, 'fold': '1/2'} for run in RUNS[1:3]]
    found = learningcurve.curves([*RUNS, *others, *folds])
    assert [(curve.title, curve.fold) for curve in found] == [
        ('LSTM layers=1', ''), ('LSTM layers=2', ''), ('LSTM layers=1', '1/2')]
    assert found[2].points[0].interval is None  # of one seed
    assert '(1 seed)' in learningcurve.learning_section(folds)


def test_a_share_of_all_stages_is_one_curve_and_other_features_another():
    def of(step, *runs):
        return [{**run, 'made_with': {'step': step, 'network': {
            'lr': 1, 'train_share': run['settings'].get('train_share', 1.0)}}} for run in runs]
    assert len(learningcurve.curves(of(1, *RUNS))[0].points) == 2
    assert learningcurve.curves([*of(1, RUNS[0]), *of(4, RUNS[2])]) == []


def test_one_share_makes_no_curve():
    assert learningcurve.curves(RUNS[:2]) == [] == learningcurve.curves([])
    assert learningcurve.learning_section(RUNS[:2]) == ''
