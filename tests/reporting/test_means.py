"""Which runs are joined to a mean, by hand; what is said of it: tests/stages/test_results.py."""
import math
from pathlib import Path

import pytest

from engine.reporting import means


def line(method, top1, **more):
    return {**dict(method=method, split=1, unit='video', n=3783, top1=top1, top5=0.8, top10=0.9,
                   loss=1.5, seed=0, settings={}), **more}


def test_a_seed_run_twice_counts_once_with_its_last_line():
    joined = means.mean_over_seeds([line('x', 0.1), line('x', 0.3), line('x', 0.5, seed=1)])
    assert len(joined) == 1
    assert joined[0]['top1'] == pytest.approx((0.4, math.sqrt(0.02)))


def test_equal_seeds_of_two_roots_are_two_runs():
    joined, = means.mean_over_seeds([line('x', top1, root=Path(root)) for root, top1 in
                                       (('a', 0.1), ('a', 0.3), ('b', 0.5))])
    assert joined['top1'] == pytest.approx((0.4, math.sqrt(0.02)))
    assert (joined['seed'], joined['runs']) == ('0,0', 2)


@pytest.mark.parametrize('other', [dict(split=2), dict(unit='frame'), dict(n=40),
                                   dict(test_only=True),
                                   dict(settings={'layers': 2}), dict(method='y')])
def test_what_differs_beyond_the_seed_is_not_averaged(other):
    assert len(means.mean_over_seeds([line('x', 0.1), line('x', 0.3, seed=1, **other)
                                        if 'method' not in other
                                        else line('y', 0.3, seed=1)])) == 2


def combined(seed, weights, members, chosen=True, top1=0.5):
    return line('a + b', top1, seed=seed, members=members, settings={
        'files': [f'{seed}_a.hdf5', f'{seed}_b.hdf5'], 'weights': weights, 'chosen': chosen})


def test_combined_runs_are_averaged_over_seeds_as_others_are():
    """The names of files and the weights found differ with the seed; what was combined does not."""
    def member(layers):
        return means.recipe(line('a', 0.1, settings={'layers': layers}))
    one, = means.mean_over_seeds([combined(0, [0.2, 0.8], [member(1)], top1=0.2),
                                  combined('0+1', [0.5, 0.5], [member(1)], top1=0.4)])
    assert one['top1'] == (pytest.approx(0.3), pytest.approx(0.02 ** 0.5))
    assert (one['seed'], one['settings']) == ('0,0+1', {'chosen': True})
    # other members, weights that were set and lines without members stay apart
    for other in (combined(1, [0.5, 0.5], [member(2)]),
                  combined(1, [0.2, 0.8], [member(1)], chosen=False), combined(1, [1, 0], None)):
        assert len(means.mean_over_seeds([combined(0, [0.2, 0.8], [member(1)]), other])) == 2
    assert len(means.mean_over_seeds([combined(seed, [0.1 * seed, 1], [member(1)], chosen=False)
                                      for seed in (0, 1)])) == 2
    # one run alone keeps its own
    one, = means.mean_over_seeds([combined(0, [0.2, 0.8], [member(1)])])
    assert one['settings']['weights'] == [0.2, 0.8]


def made(step, lists='a', **more):
    return dict(made_with={'step': step, 'network': {'lr': 0.1}}, classes='c', lists=lists, **more)


def test_members_and_splits_of_another_making_stay_apart():
    # Each split has lists of its own, but the same classes.
    split = line('x', 0.3, split=2, **made(1, 'b'))
    assert len(means.mean_over_splits([line('x', 0.1, **made(1)), split])) == 1
    for other in ({'classes': 'd'}, {'made_with': {'step': 2}}):
        assert len(means.mean_over_splits([line('x', 0.1, **made(1)), {**split, **other}])) == 2
    # Members are held against one another, too.
    one, two = (combined(seed, [1, 0], [means.as_member(line('a', 0.1, **made(step)))])
                for seed, step in ((0, 1), (1, 4)))
    assert len(means.mean_over_seeds([one, two])) == 2
    assert len(means.mean_over_seeds([one, {**two, 'members': one['members']}])) == 1


def test_a_line_of_earlier_code_gives_way_to_one_that_tells_more_of_the_same_run():
    told = dict(made_with={'step': 1}, classes='c', lists='a')
    one, = means.mean_over_seeds([line('x', 0.1), line('x', 0.3, **told)])
    assert one['top1'] == (0.3, None)
    # but not to one that was made otherwise
    assert len(means.mean_over_seeds([line('x', 0.1, **{**told, 'lists': 'b'}),
                                      line('x', 0.3, **told)])) == 2


def test_a_combination_of_folds_shows_no_folds_own_weights():
    members = [means.as_member(line('a', 0.1))]
    one, = means.mean_over_folds([{**combined(0, [k / 10, 1], members), 'fold': f'{k}/2'}
                                  for k in (1, 2)])
    assert one['settings'] == {'chosen': True}


@pytest.mark.parametrize('other', [dict(lists='b'), dict(n=3700)])
@pytest.mark.parametrize('turned', [False, True])
def test_of_two_runs_of_a_split_made_otherwise_none_is_lost(other, turned):
    lines = [line('x', 0.9, lists='a'), line('x', 0.1, seed=1, **{'lists': 'a', **other}),
             line('x', 0.3, split=2), line('x', 0.5, split=3)]
    joined = means.mean_over_splits(lines[::-1] if turned else lines)
    assert sorted((one['split'], round(one['top1'][0], 3)) for one in joined) == [
        ('1', 0.1), ('1', 0.9), ('2,3', 0.4)]
    said, = means.lines_about_apart(joined)
    assert 'are not joined' in said and ('lists' in said or 'n=3700' in said)
