"""Fields of mixing, averaging and the optimizer, which make the recipe; see docs/recipes.md."""

from ssanet_jax.config.field import FRACTION, Check, Field, above, at_least, between, one_of

# fmt: off
_MIX = (
    Field('mix.mixup_alpha', 0.0, 'Beta parameter of mixup, see docs/recipes.md; 0: no mixup.',
          at_least(0)),
    Field('mix.cutmix_alpha', 0.0, 'Beta parameter of cutmix; 0: no cutmix.', at_least(0)),
    Field('mix.switch_prob', 0.5, 'Probability of cutmix in a step, where both are on.',
          between(0, 1)),
)

_EMA = (
    Field('ema.horizon', 0.0,
          "EMA time constant 1 / (1 - decay), as a fraction of the run's steps; 0: no average.",
          between(0, 1)),
)

_MOMENTUM = {'optimizer.name': one_of('sgd', 'lars', 'muon')}
_ADAPTIVE = {'optimizer.name': one_of('adamw', 'lamb', 'lion', 'muon')}
_STEPWISE = {'optimizer.schedule': 'step'}
_DECAYING = {'optimizer.schedule': one_of('cosine', 'polynomial')}
_PIECEWISE = {'optimizer.schedule': 'piecewise'}
_OPTIMIZER = (
    Field('optimizer.name', 'sgd', 'Optimizer, of optax; see docs/recipes.md.',
          choices=('sgd', 'adamw', 'lamb', 'lars', 'lion', 'muon')),
    Field('optimizer.learning_rate', 0.1,
          'Peak learning rate for reference_batch_size; scales linearly with batch_size.',
          above(0)),
    Field('optimizer.reference_batch_size', 128, 'See learning_rate.', at_least(1)),
    Field('optimizer.momentum', 0.9, 'Momentum.', FRACTION, only_with=_MOMENTUM),
    Field('optimizer.nesterov', False, 'Nesterov momentum.', only_with=_MOMENTUM),
    Field('optimizer.b1', 0.9, 'Decay of the first moment.', FRACTION, only_with=_ADAPTIVE),
    Field('optimizer.b2', 0.999, 'Decay of the second moment; of the momentum with lion.',
          FRACTION, only_with=_ADAPTIVE),
    Field('optimizer.weight_decay', 1e-4,
          'L2 added to the gradient with sgd and lars; decoupled with others.', at_least(0)),
    Field('optimizer.decay_parameters', 'all',
          "Parameters with weight decay; 'kernels' excludes biases and BatchNorm.",
          choices=('all', 'kernels')),
    Field('optimizer.clip_norm', 0.0,
          'Norm of all gradients together above which they are scaled down to it; 0: never.',
          at_least(0)),
    Field('optimizer.schedule', 'step', 'Learning rate schedule, see docs/recipes.md.',
          choices=('step', 'cosine', 'constant', 'polynomial', 'piecewise')),
    Field('optimizer.warmup_epochs', 0.0, 'Epochs of linear warm-up.', at_least(0)),
    Field('optimizer.warmup_start', 0.0, 'First learning rate of the warm-up, over the peak.',
          between(0, 1), only_with={'optimizer.warmup_epochs': above(0)}),
    Field('optimizer.floor', 0.0, 'Last learning rate, over the peak.', between(0, 1),
          only_with=_DECAYING),
    Field('optimizer.cooldown_epochs', 0.0, 'Last epochs, at the floor.', at_least(0),
          only_with=_DECAYING),
    Field('optimizer.power', 1.0, 'Exponent of the polynomial.', above(0),
          only_with={'optimizer.schedule': 'polynomial'}),
    Field('optimizer.knot_epochs', (0.0, 1.0),
          'Epochs between which the learning rate is interpolated.',
          Check('rising', lambda v: len(v) > 1 and list(v) == sorted(set(v)) and v[0] >= 0),
          only_with=_PIECEWISE),
    Field('optimizer.knot_factors', (1.0, 1.0), 'Learning rates at knot_epochs, over the peak.',
          Check('at least 0', lambda v: len(v) > 1 and min(v) >= 0), only_with=_PIECEWISE),
    Field('optimizer.decay_epochs', (30.0, 60.0, 90.0),
          'Epochs at which the learning rate is multiplied by decay_factor.',
          Check('rising', lambda v: list(v) == sorted(set(v)) and min(v, default=1) > 0),
          only_with=_STEPWISE),
    Field('optimizer.decay_factor', 0.1, 'See decay_epochs.', above(0), only_with=_STEPWISE),
    Field('optimizer.train_only', (),
          "Patterns of parameters to train, e.g. ('*/ssa/*',); others are frozen; empty: all.",
          kind=tuple[str, ...]),
)
# fmt: on

RECIPE = (*_MIX, *_EMA, *_OPTIMIZER)
