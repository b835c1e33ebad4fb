"""The spread of paired differences on digits, without the test images of digits.py."""

import digits

from ssanet_jax.study import Study, Variant


def get_study() -> Study:
    config = digits.get_config()
    config.dataset.train_split = 'train[50%:]'
    config.dataset.eval_split = 'train[:50%]'
    return Study(
        question='How much do paired differences on digits vary?',
        config=config,
        variants={'none': Variant(), 'ssa': digits.named('ssa')},
        seeds=range(1000, 1006),
        smallest_effect=0.3,
    )
