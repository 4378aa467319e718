"""How gradients become updates in rnn.py: its optimizer, and the flags that say which."""
import engine.chainer_today  # noqa: F401  (before chainer)
from chainer.optimizer_hooks import GradientClipping, GradientHardClipping

from engine import arguments
from engine.fast.optimizers import Adam, MomentumSGD, WeightDecay
from engine.learning.rates import add_rate


def add_optimizer(group):
    """Adds the flags of make_optimizer to a group of a parser."""
    group.add_argument('--optimizer', choices=('momentum', 'adam'), default='momentum',
                       help='adam fits the rate to each weight: quicker, with less care about '
                            '--lr (default: momentum, of 0.9)')
    add_rate(group)
    group.add_argument('--weight-decay', type=arguments.not_negative, default=0.0, metavar='RATE',
                       help='pulls all weights to 0: smoother, overfits less (default: 0)')
    group.add_argument('--clip', type=arguments.not_negative, default=5.0, metavar='NORM',
                       help='a longer gradient is shortened to this, so that one odd batch cannot '
                            'undo the rest; 0 for no limit (default: 5)')
    group.add_argument('--clip-value', type=arguments.not_negative, default=0.0, metavar='LIMIT',
                       help='the same for each number in the gradient, which bends its direction '
                            '(default: 0, no limit)')


def make_optimizer(args, model, team):
    """The optimizer that the flags ask for, set up for a model of all Workers of `team`."""
    optimizer = Adam(args.lr) if args.optimizer == 'adam' else MomentumSGD(args.lr, 0.9)
    optimizer.setup(model)
    team.agree(optimizer)
    if args.weight_decay:
        optimizer.add_hook(WeightDecay(args.weight_decay))
    if args.clip:
        optimizer.add_hook(GradientClipping(args.clip))
    if args.clip_value:
        optimizer.add_hook(GradientHardClipping(-args.clip_value, args.clip_value))
    return optimizer
