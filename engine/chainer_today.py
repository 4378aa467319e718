"""Imports the unmodified Chainer 7.8.1 on today's Python and NumPy.

Import this before chainer in every process that uses it::

    import engine.chainer_today  # noqa: F401  (before chainer)
    import chainer

Chainer's last release leans on things that NumPy 2, Python 3.12, setuptools 82
and protobuf 4 took away. This module puts back what Chainer asks for by name
and nothing else: no number that Chainer computes is changed.
"""
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types

import numpy

CAFFE_PB2 = 'chainer.links.caffe.protobuf3.caffe_pb2'


def _mend_numpy():
    # Look in __dict__: numpy.__getattr__ warns or raises for a name that is gone.
    gone = {
        'float': float,  # chainer.functions.resize_images
        'sctypes': {     # chainer.functions.as_strided, already at its import
            'int': [numpy.int8, numpy.int16, numpy.int32, numpy.int64],
            'uint': [numpy.uint8, numpy.uint16, numpy.uint32, numpy.uint64],
            'float': [numpy.float16, numpy.float32, numpy.float64],
            'complex': [numpy.complex64, numpy.complex128],
            'others': [bool, object, bytes, str, numpy.void],
        },
    }
    for name, value in gone.items():
        if name not in numpy.__dict__:
            setattr(numpy, name, value)
    numpy.fix = numpy.trunc  # the same numbers; NumPy 2.5 deprecates `fix`


class _CaffeMessages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Rebuilds Chainer's Caffe messages with the protobuf that is installed.

    Chainer ships them as Python that protoc < 3.19 wrote, which protobuf >= 4
    refuses to run; the file's own serialized descriptor says all that is needed.
    """

    def find_spec(self, fullname, path, target=None):
        if fullname != CAFFE_PB2:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        return importlib.machinery.ModuleSpec(
            fullname, self, origin=found.origin) if found else None

    def exec_module(self, module):
        from google.protobuf import descriptor_pool
        from google.protobuf.internal import builder
        with open(module.__spec__.origin, encoding='utf-8') as f:
            tree = ast.parse(f.read())
        # DESCRIPTOR = _descriptor.FileDescriptor(..., serialized_pb=_b('...'))
        serialized = next(
            keyword.value.args[0].value.encode('latin1')
            for node in ast.walk(tree) if isinstance(node, ast.Call)
            for keyword in node.keywords if keyword.arg == 'serialized_pb')
        descriptor = descriptor_pool.Default().AddSerializedFile(serialized)
        builder.BuildMessageAndEnumDescriptors(descriptor, module.__dict__)
        builder.BuildTopDescriptorsAndMessages(descriptor, CAFFE_PB2, module.__dict__)


def _environment_stand_ins():
    """The modules that chainer._environment_check imports and today lacks."""
    distutils = types.ModuleType('numpy.distutils')
    distutils.system_info = types.ModuleType('numpy.distutils.system_info')
    distutils.system_info.get_info = lambda name: {}
    resources = types.ModuleType('pkg_resources')
    resources.DistributionNotFound = type('DistributionNotFound', (Exception,), {})
    resources.VersionConflict = type('VersionConflict', (Exception,), {})

    def require(requirement):
        # "Not installed" is the answer that makes Chainer neither warn nor
        # compare today's versions with those of its day.
        raise resources.DistributionNotFound(requirement)
    resources.require = require
    return {'numpy.distutils': distutils,
            'numpy.distutils.system_info': distutils.system_info,
            'pkg_resources': resources}


class _Later(types.ModuleType):
    """A module that is imported when something of it is wanted."""

    def __getattr__(self, name):
        if name.startswith('__'):  # asked by imports
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


def _scipy_later():
    """SciPy's modules, half of the time that Chainer's import takes: a few of its functions call
    them, which none of our stages does. CuPy, which Chainer imports too, wants them at once."""
    found = importlib.util.find_spec
    if 'scipy' in sys.modules or not found('scipy') or found('cupy'):
        return {}
    scipy = _Later('scipy')
    scipy.__path__ = []
    for name in ('io', 'linalg', 'sparse', 'special'):
        setattr(scipy, name, _Later(f'scipy.{name}'))
    return {'scipy': scipy, **{f'scipy.{name}': module for name, module in vars(scipy).items()
                               if isinstance(module, _Later)}}


def _import_chainer():
    # CuPy 14 has no cuDNN; Chainer must not look for it.
    os.environ.setdefault('CHAINER_CUDNN', '0')
    _mend_numpy()
    sys.meta_path.insert(0, _CaffeMessages())
    stand_ins = {**_environment_stand_ins(), **_scipy_later()}
    # They stand only while Chainer is imported: other packages that probe for
    # the real modules must not meet them.
    real = {name: sys.modules.get(name) for name in stand_ins}
    real_distutils = numpy.__dict__.get('distutils')
    sys.modules.update(stand_ins)
    numpy.distutils = stand_ins['numpy.distutils']
    try:
        import chainer  # noqa: F401
    finally:
        del numpy.distutils
        if real_distutils is not None:
            numpy.distutils = real_distutils
        for name, module in real.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


if 'chainer' not in sys.modules:
    _import_chainer()
