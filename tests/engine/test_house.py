"""The house's own rules (docs/house.md): who may import whom, and how long things may be.

All imports are read from the syntax trees, late ones inside functions too.
"""
import ast
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
NETWORKS = {'VGGNet', 'VGGNet_1024', 'FusionNet', 'RNNNet', 'PoolingNet'}
ROOMS = {path.name for path in (HOUSE / 'engine').iterdir() if (path / '__init__.py').exists()}
ALL_ROOMS = frozenset(ROOMS | {'root'})

# What each room may import besides itself; 'root' is engine's own files.
MAY_IMPORT = {
    'root': set(),
    'fast': {'root'},
    'video': {'root', 'drawing'},
    'weights': {'root'},
    'cluster': {'root'},
    'drawing': {'root'},
    'events': {'root', 'video', 'drawing'},
    'learning': {'root', 'fast', 'video', 'weights', 'drawing'},
    'reporting': {'root', 'video', 'weights', 'drawing'},
    'networks': {'root', 'fast', 'video', 'weights', 'learning'},
    'helperFunctions': {'root'},
    'scripts': {'helperFunctions', 'networks', *ALL_ROOMS},
}
# The few scripts that drive or build on others, and which.
DRIVERS = {
    'generate_pbs': {'saveFeatures_1024', 'opticalFlow', 'rnn', 'frameBasedTrain'},
    'sweep': {'generate_pbs', 'rnn'},
    'getData': {'checkData'},
    'makeSplit': {'checkData'},
    'cutClips': {'makeSplit'},
}
MOST_LINES, MOST_COLUMNS, MOST_LINES_OF_FUNCTION, MOST_FILES_AT_ROOT = 450, 100, 60, 10


def sources(folder):
    return sorted(path for path in (HOUSE / folder).rglob('*.py')
                  if not any(part.startswith(('.venv', '__pycache__')) for part in path.parts))


def scripts():
    return sorted(HOUSE.glob('*.py'))


def room_of(path):
    """'scripts', 'networks', 'helperFunctions', or engine's room or 'root'."""
    parts = path.relative_to(HOUSE).with_suffix('').parts
    if parts[0] == 'engine':
        return parts[1] if len(parts) > 2 else 'root'
    name = parts[0]
    return name if name == 'helperFunctions' else 'networks' if name in NETWORKS else 'scripts'


def imported(tree):
    """(line, dotted name) of each import of the house's own modules."""
    own = {path.stem for path in scripts()} | {'engine'}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from engine import stage`, `from engine.video import decode` name modules, too.
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        for name in names:
            if name.split('.')[0] in own:
                yield node.lineno, name


def room_imported(name):
    parts = name.split('.')
    if parts[0] == 'engine':
        return parts[1] if len(parts) > 1 and parts[1] in ROOMS else 'root'
    return ('helperFunctions' if parts[0] == 'helperFunctions'
            else 'networks' if parts[0] in NETWORKS else 'scripts')


def wrong_imports(path, tree):
    """Lines that say which import of a file the table does not allow."""
    room = room_of(path)
    for line, name in imported(tree):
        other = room_imported(name)
        if other == 'scripts':
            allowed = name.split('.')[0] in DRIVERS.get(path.stem, ()) and room == 'scripts'
        else:
            allowed = other == room or other in MAY_IMPORT[room]
        if not allowed:
            yield f'{path.relative_to(HOUSE)}:{line}: {room} may not import {name}'


@pytest.mark.parametrize('path', scripts() + sources('engine'),
                         ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_run_one_way(path):
    assert not list(wrong_imports(path, ast.parse(path.read_text())))


@pytest.mark.parametrize('path,line', [
    ('engine/files.py', 'from engine.video import decode'),
    ('engine/fast/conv.py', 'def late():\n    from engine.learning import frames'),
    ('engine/weights/modelfile.py', 'import engine.reporting.scoring'),
    ('VGGNet.py', 'import rnn'),
    ('helperFunctions.py', 'from engine.video.decode import Frames'),
    ('confusion.py', 'import results')])
def test_an_import_that_the_table_forbids_is_seen(path, line):
    assert list(wrong_imports(HOUSE / path, ast.parse(line)))


def test_no_circle_among_networks_and_modules():
    """Every module can be imported before all that import it: an order exists."""
    known = {'.'.join(path.relative_to(HOUSE).with_suffix('').parts): path
             for path in scripts() + sources('engine')}
    needs = {}
    for module, path in known.items():
        found = {name for _, name in imported(ast.parse(path.read_text()))}
        # a name inside a module counts as the module
        needs[module] = {next((known_name for known_name in (name, name.rpartition('.')[0])
                               if known_name in known), None) for name in found} - {None, module}
    done = set()
    while len(done) < len(needs):
        ready = {module for module, others in needs.items() if others <= done} - done
        assert ready, f'a circle among {sorted(set(needs) - done)}'
        done |= ready


def test_no_file_is_a_drawer():
    """No Python file over 450 lines or 100 columns; engine's root holds no more than ten."""
    long = []
    for path in sources('.'):
        lines = path.read_text().splitlines()
        if len(lines) > MOST_LINES:
            long.append(f'{path.relative_to(HOUSE)}: {len(lines)} lines')
        long += [f'{path.relative_to(HOUSE)}:{n}: {len(line)} columns'
                 for n, line in enumerate(lines, 1) if len(line) > MOST_COLUMNS]
    assert not long
    assert len(list((HOUSE / 'engine').glob('*.py'))) <= MOST_FILES_AT_ROOT


def test_no_function_is_too_long():
    """None over 60 lines; one that declares flags is split by their groups."""
    long = []
    for path in sources('.'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES_OF_FUNCTION:
                    long.append(f'{path.relative_to(HOUSE)}: {node.name} has {lines} lines')
    assert not long
