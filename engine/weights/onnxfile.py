"""Reads what an ONNX file holds, nodes and constants; what they compute: onnxlayers.py."""
import math
import mmap

import numpy

from engine.errors import UserError
from engine.weights.dtypes import BFLOAT16, itemsize, numbers
from engine.weights.limits import MOST_DIMENSIONS
from engine.weights.protobuf import Messages, real, signed, text

DTYPES = {1: 'f4', 6: 'i4', 7: 'i8', 10: 'f2', 11: 'f8', 16: BFLOAT16}
# Fields of a tensor that hold its numbers where they are not raw: number and dtype there.
TYPED = {1: (4, 'f4'), 11: (10, 'f8')}
OWN_DOMAIN = '', 'ai.onnx'
OPSET = 17


class Graph:
    """What an ONNX file holds: its nodes, its constants, and who made it.

    graph[name] is the array of a constant.

    Attributes:
        nodes: of Node, in the file's order, which is that of computing.
        producer: the program that wrote it, as it calls itself.
        notes: {key: text} that were hung on it.
        opset: version of ONNX's own operators; of a file that tells none, one of today.
        input: name of what is put in.
        budget: what its reading may still cost.
    """

    def __init__(self, path, budget):
        self.budget = budget
        self._path, self._files = path, {}
        self._messages = Messages(budget)
        with open(path, 'rb') as f:
            view = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        model = self._messages.grouped(view)
        graph = self._messages.grouped(model[7][0])
        self.producer = text(model.get(2, [b''])[0])
        self.notes = {text(note[1][0]): text(note.get(2, [b''])[0])
                      for note in map(self._messages.grouped, model.get(14, ()))}
        opsets = [self._messages.grouped(data) for data in model.get(8, ())]
        self.opset = next((opset.get(2, [OPSET])[0] for opset in opsets
                           if text(opset.get(1, [b''])[0]) in OWN_DOMAIN), OPSET)
        self._constants = {}
        for data in graph.get(5, ()):
            tensor = self._messages.grouped(data)
            self.put(text(tensor[8][0]), self.tensor(tensor))
        self.nodes = [Node(self._messages, data) for data in graph.get(1, ())]
        inputs = [text(self._messages.grouped(data)[1][0]) for data in graph.get(11, ())]
        inputs = {name for name in inputs if name not in self._constants}
        if not inputs:  # a graph without a list of them: what comes from nowhere
            made = {name for node in self.nodes for name in node.outputs}
            inputs = {name for node in self.nodes for name in node.inputs
                      if name not in self._constants and name not in made}
        # of several the one that the first layers take, not one that nothing takes
        self.input = next((name for node in self.nodes for name in node.inputs if name in inputs),
                          '')

    def put(self, name, read):
        """Adds a constant by a function that reads it: most are never asked for."""
        self._constants[name] = read

    def __contains__(self, name):
        return name in self._constants

    def __getitem__(self, name):
        return self._constants[name]()

    def tensor(self, tensor):
        """A function that reads the array of a TensorProto (fields by number)."""
        name = text(tensor.get(8, [b''])[0])
        shape = self._messages.packed(tensor.get(1, ()))
        if len(shape) > MOST_DIMENSIONS:
            raise ValueError(f'{name} has no proper shape')
        return lambda: self._read(name, tensor, shape)

    def _read(self, name, tensor, shape):
        kind = tensor[2][0]
        if kind not in DTYPES:
            raise UserError(f'{self._path}: {name} holds numbers of a kind that is not read (a '
                            'quantised network?); convert the one it was made from')
        dtype = DTYPES[kind]
        # many may be one and the same place in the file
        self.budget.take(size=math.prod(shape) * max(4, itemsize(dtype)))
        if tensor.get(14, [0])[0] == 1:
            array = self._read_beside(name, dtype, math.prod(shape), tensor)
        elif 9 in tensor:
            array = numbers(tensor[9][0], dtype)
        elif kind in TYPED:
            field, dtype = TYPED[kind]
            array = numbers(b''.join(map(bytes, tensor.get(field, ()))), dtype)
        elif kind == 7:
            array = numpy.array(self._messages.packed(tensor.get(7, ())), 'u8').view('i8')
        else:  # the bits of a number of two bytes, each in an integer
            bits = numpy.array(self._messages.packed(tensor.get(5, ())), 'u8')
            array = numbers(bits.astype('u4' if kind == 6 else 'u2').tobytes(), dtype)
        return array.reshape(shape)

    def _read_beside(self, name, dtype, count, tensor):
        """Numbers that lie in another file of the same folder."""
        places = {text(e[1][0]): text(e[2][0])
                  for e in map(self._messages.grouped, tensor[13])}
        # A plain name only: the file must not reach elsewhere on this machine.
        beside = places['location']
        if beside in ('', '.', '..') or '/' in beside or '\\' in beside:
            raise UserError(f'{self._path}: its numbers should lie in {beside!r}; only a file in '
                            'the same folder is read')
        if beside not in self._files:
            place = self._path.parent / beside
            if place.is_symlink():
                raise UserError(f'{self._path}: its numbers lie in {beside}, which is a link and '
                                'may lead anywhere; put a copy of both files into one folder')
            if not place.is_file():
                raise UserError(f'{self._path}: its numbers lie in {beside}, which is not there; '
                                'fetch that file too, into the same folder')
            with open(place, 'rb') as f:
                self._files[beside] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        offset = int(places.get('offset', 0))
        if offset < 0:
            raise ValueError(f'{name} starts before its file')
        return numbers(self._files[beside], dtype, count, offset)


class Node:
    """One step of a graph: `op`, names of `inputs` and `outputs`, attributes by the methods."""

    def __init__(self, messages, data):
        node = messages.grouped(data)
        self._messages = messages
        self.op = text(node[4][0])
        self.inputs = [text(value) for value in node.get(1, ())]
        self.outputs = [text(value) for value in node.get(2, ())]
        self._attributes = {text(a[1][0]): a for a in map(messages.grouped, node.get(5, ()))}
        if text(node.get(7, [b''])[0]) not in OWN_DOMAIN:
            self.op = f'{text(node[7][0])}.{self.op}'

    def __contains__(self, name):
        return name in self._attributes

    def integer(self, name, default):
        return signed(self._attributes[name][3][0]) if name in self else default

    def integers(self, name, default):
        if name not in self:
            return default
        return [signed(value) for value in self._messages.packed(self._attributes[name][8])]

    def number(self, name, default):
        return real(self._attributes[name][2][0]) if name in self else default

    def reals(self, name):
        return numbers(b''.join(map(bytes, self._attributes[name][7])), 'f4')

    def word(self, name, default=''):
        return text(self._attributes[name][4][0]) if name in self else default

    def tensor(self, name):
        return self._messages.grouped(self._attributes[name][5][0])
