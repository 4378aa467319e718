"""How many threads to compute with: one function that knows of cpusets and of the environment."""
import ast
import os

import pytest

from engine import usable_cores
from test_house import sources


@pytest.fixture
def cores(monkeypatch):
    """Gives this process eight cores of sixteen, and no wishes."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 16)
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize('environment, number', [
    ({}, 8), ({'OMP_NUM_THREADS': '3'}, 3), ({'OPENBLAS_NUM_THREADS': '2'}, 2),
    ({'OMP_NUM_THREADS': '3', 'OPENBLAS_NUM_THREADS': '2'}, 2),
    # more than the cpuset gives would stand in one another's way
    ({'OMP_NUM_THREADS': '16'}, 8),
    ({'OMP_NUM_THREADS': ' 4,2'}, 4), ({'OMP_NUM_THREADS': '+5'}, 5),
    ({'OMP_NUM_THREADS': '06'}, 6),
    ({'OMP_NUM_THREADS': '0'}, 8), ({'OMP_NUM_THREADS': ''}, 8), ({'OMP_NUM_THREADS': 'all'}, 8),
    ({'OMP_NUM_THREADS': '-1'}, 8), ({'OMP_NUM_THREADS': '2.5'}, 8), ({'OMP_NUM_THREADS': '²'}, 8),
    ({'OPENBLAS_NUM_THREADS': '0', 'OMP_NUM_THREADS': '3'}, 3)])
def test_cpuset_and_environment(cores, environment, number):
    for name, value in environment.items():
        cores.setenv(name, value)
    assert usable_cores() == number


def test_where_nobody_knows_of_cpusets(cores):
    cores.delattr(os, 'sched_getaffinity')
    assert usable_cores() == 16
    cores.setenv('OMP_NUM_THREADS', '5')
    assert usable_cores() == 5
    cores.delenv('OMP_NUM_THREADS')
    cores.setattr(os, 'cpu_count', lambda: None)
    assert usable_cores() == 1


def test_nobody_else_counts_cores():
    for path in sources('.'):
        if path.parts[-2:] != ('engine', '__init__.py') and 'tests' not in path.parts:
            names = {node.attr for node in ast.walk(ast.parse(path.read_text()))
                     if isinstance(node, ast.Attribute)}
            assert not names & {'sched_getaffinity', 'cpu_count', 'process_cpu_count'}, path
