"""Training speed of the recurrent layers: ours, Chainer's links, PyTorch's nn.LSTM.

Every contender does the same work: LSTM layers and a Linear to the classes, the mean
softmax cross entropy over all steps, truncated back-propagation with one step of its own
Adam a window. They take turns, so that other load on the machine meets all alike; the table
shows medians, in sequences a second. "products" is what the matrix products alone would
allow at the speed that a large SGEMM reaches here and now.

    python -m bench.lstm --layers 1 3 5 --units 512 1024
"""
import argparse
import statistics
import time

import bench

import numpy

import engine.chainer_today  # noqa: F401  (before chainer)
import chainer
import chainer.functions as F
import chainer.links as L

from engine import usable_cores
from engine.arguments import whole
from engine.fast.optimizers import Adam
from engine.fast.lstm import LSTM, copy_lstm

try:
    import torch
except ImportError:
    torch = None


class Ours(chainer.Chain):
    def __init__(self, args, layers, units):
        super().__init__()
        with self.init_scope():
            self.lstm = LSTM(args.features, units, layers)
            self.out = L.Linear(units, args.classes)

    def reset_state(self):
        self.lstm.reset_state()

    def forward(self, xs):
        h = self.lstm(xs)
        return self.out(F.reshape(h, (-1, h.shape[2])))


class Stepwise(chainer.Chain):
    def __init__(self, args, layers, units):
        super().__init__()
        with self.init_scope():
            self.lstm = chainer.ChainList(*[
                L.LSTM(units if k else args.features, units) for k in range(layers)])
            self.out = L.Linear(units, args.classes)

    def reset_state(self):
        for link in self.lstm:
            link.reset_state()

    def forward(self, xs):
        outputs = []
        for x in xs:
            for link in self.lstm:
                x = link(x)
            outputs.append(self.out(x))
        return F.concat(outputs, axis=0)


def chainer_epoch(model, adam):
    optimizer = adam().setup(model)

    def run(xs, ts, window):
        model.reset_state()
        for k in range(0, len(xs), window):
            loss = F.softmax_cross_entropy(model(xs[k:k + window]), ts[k:k + window].ravel())
            model.cleargrads()
            loss.backward()
            loss.unchain_backward()
            optimizer.update()
        return float(loss.array)
    return run


def torch_epoch(args, layers, units, weights, device='cpu'):
    torch.set_num_threads(usable_cores())
    lstm = torch.nn.LSTM(args.features, units, layers)
    out = torch.nn.Linear(units, args.classes)
    with torch.no_grad():  # start from the same weights, to compare the losses
        order = [0, 1, 3, 2]  # ours i, f, o, g; theirs i, f, g, o

        def rows(w):
            w = w.reshape(4, units, -1)[order]
            return torch.from_numpy(w.reshape(4 * units, -1).copy())
        for k in range(layers):
            layer = weights.lstm[f'layer{k}']
            getattr(lstm, f'weight_ih_l{k}').copy_(rows(layer.w_x.array))
            getattr(lstm, f'weight_hh_l{k}').copy_(rows(layer.w_h.array))
            getattr(lstm, f'bias_ih_l{k}').copy_(rows(layer.b.array)[:, 0])
            getattr(lstm, f'bias_hh_l{k}').zero_()
        out.weight.copy_(torch.from_numpy(weights.out.W.array))
        out.bias.copy_(torch.from_numpy(weights.out.b.array))
    lstm, out = lstm.to(device), out.to(device)
    parameters = [*lstm.parameters(), *out.parameters()]
    optimizer = torch.optim.Adam(parameters)

    def run(xs, ts, window):
        xs, ts = torch.as_tensor(xs).to(device), torch.as_tensor(ts).long().to(device)
        state = None
        for k in range(0, len(xs), window):
            h, state = lstm(xs[k:k + window], state)
            state = tuple(s.detach() for s in state)
            loss = torch.nn.functional.cross_entropy(
                out(h).flatten(0, 1), ts[k:k + window].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(loss.detach())
    return run


def operations(args, layers, units):
    """Floating point operations of the products for one sequence, forward and backward."""
    total = 0
    for k in range(layers):
        n_in = units if k else args.features
        # Forward, weight gradient, gradient of the input (not below the first layer).
        total += 4 * units * (n_in * (3 if k else 2) + 3 * units)
    return 2 * args.steps * (total + 3 * units * args.classes)


def compare(args, layers, units):
    numpy.random.seed(0)
    ours, stepwise = Ours(args, layers, units), Stepwise(args, layers, units)
    copy_lstm(stepwise.lstm, ours.lstm)
    ours.out.copyparams(stepwise.out)
    contenders = {'ours': chainer_epoch(ours, Adam)}
    if not args.no_chainer:
        contenders['Chainer'] = chainer_epoch(stepwise, chainer.optimizers.Adam)
    if torch is not None:
        contenders['PyTorch'] = torch_epoch(args, layers, units, ours)
    xs = numpy.random.randn(args.steps, args.batch, args.features).astype('f')
    ts = numpy.random.randint(0, args.classes, (args.steps, args.batch)).astype('i')
    clock = time.process_time if args.cpu_time else time.perf_counter
    times = {name: [] for name in contenders}
    speeds, losses = [], {}
    for repeat in range(args.repeats + 1):
        speeds.append(bench.sgemm_speed(clock))
        for name, run in contenders.items():
            start = clock()
            loss = run(xs, ts, args.window)
            if repeat:  # the first warms up
                times[name].append(clock() - start)
            else:
                losses[name] = loss
    assert numpy.ptp(list(losses.values())) < 1e-2, losses  # they do the same work
    rate = {name: args.batch / statistics.median(t) for name, t in times.items()}
    rate['products'] = statistics.median(speeds) / operations(args, layers, units)
    return rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--layers', type=whole(1), nargs='+', default=[1])
    parser.add_argument('--units', type=whole(1), nargs='+', default=[512])
    parser.add_argument('--features', type=whole(1), default=1024)
    parser.add_argument('--classes', type=whole(1), default=101)
    parser.add_argument('--batch', type=whole(1), default=64)
    parser.add_argument('--steps', type=whole(1), default=120)
    parser.add_argument('--window', type=whole(1), default=30)
    parser.add_argument('--repeats', type=whole(1), default=7)
    parser.add_argument('--cpu-time', action='store_true',
                        help='count the time of the process, for a machine with other load: '
                             'set OMP_NUM_THREADS=1, as threads that wait count too')
    parser.add_argument('--no-chainer', action='store_true', help='leave out the slow one')
    args = parser.parse_args()
    names = ['ours'] + ['Chainer'] * (not args.no_chainer) + ['PyTorch'] * (torch is not None)
    print('layers units  ' + ''.join(f'{name:>10}' for name in names + ['products'])
          + ''.join(f'{"ours/" + name:>14}' for name in names[1:]))
    for units in args.units:
        for layers in args.layers:
            rate = compare(args, layers, units)
            print(f'{layers:6} {units:5}  '
                  + ''.join(f'{rate[name]:10.1f}' for name in names + ['products'])
                  + ''.join(f'{rate["ours"] / rate[name]:14.2f}' for name in names[1:]),
                  flush=True)


if __name__ == '__main__':
    main()
