"""The learning rate from the first epoch to the last, and its flags."""
import math

from engine import arguments
from engine.errors import UserError

SCHEDULES = ('constant', 'step', 'linear', 'cosine')


def rate_factor(schedule, progress, epochs, drop=0):
    """What share of the learning rate is used after `progress` epochs (a fraction, too).

    'step' divides it by 10 every `drop` epochs; 'linear' and 'cosine' let it fall to 0 over
    all `epochs`, the latter slowly at first and at last.
    """
    if schedule == 'step':
        return 0.1 ** int(progress / drop)
    share = min(progress / epochs, 1)
    if schedule == 'linear':
        return 1 - share
    return (1 + math.cos(math.pi * share)) / 2 if schedule == 'cosine' else 1.0


def add_rate(group):
    """Adds --lr, --schedule and --lr-drop to a stage's flags."""
    group.add_argument('--lr', type=arguments.positive, default=0.0005, metavar='RATE',
                       help='learning rate; too high and the loss jumps or is no number, too low '
                            'and it hardly falls (default: 0.0005)')
    group.add_argument('--schedule', choices=SCHEDULES, default='constant',
                       help='step: a tenth every --lr-drop epochs; linear, cosine: down to 0 over '
                            'all epochs; a lower rate at the end settles (default: constant)')
    group.add_argument('--lr-drop', type=arguments.whole(0), default=0, metavar='EPOCHS',
                       help='for --schedule step')


def get_rate(args):
    """-> (function of the epochs done that returns the rate, what `schedule` is as a setting).

    Raises UserError for flags of add_rate that do not go together.
    """
    if (args.schedule == 'step') != (args.lr_drop > 0):
        raise UserError('--schedule step and --lr-drop EPOCHS belong together')
    # With these, more epochs are another run, not a longer one.
    over = f' over {args.epochs} epochs' * (args.schedule in ('linear', 'cosine'))
    return (lambda done: args.lr * rate_factor(args.schedule, done, args.epochs, args.lr_drop),
            args.schedule + over)
