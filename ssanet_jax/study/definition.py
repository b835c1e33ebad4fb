"""What a study compares: variants and seeds of one config."""

import dataclasses
import re
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.config.validation import check
from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.models.network import ModuleFn
from ssanet_jax.study.corruptions import CORRUPTIONS

_NAME = re.compile(r'[a-z0-9_]+')
_NEVER = 10**9  # steps


@dataclasses.dataclass(frozen=True)
class Variant:
    """One side of a comparison.

    Attributes:
      overrides: config fields that differ from the study's, as {'model.name': 'ssa_resnet20'}.
      attention: makes attention blocks that have no name in `ATTENTION`.
    """

    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    attention: ModuleFn | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """Variants x seeds of one config.

    For each seed, all variants get the same batches and augmentation, and the same initial values
    of parameters with the same path and shape. The evaluation split is read after the last step
    only.

    Attributes:
      question: one sentence.
      config: shared by all runs, but for the overrides of each variant and the seed.
      variants: by name, of lowercase letters, digits and underscores.
      seeds: one pair with the baseline each.
      smallest_effect: difference in accuracy that would matter, in percentage points.
      baseline: the variant that the others are compared with.
      corruptions: names in `corruptions.CORRUPTIONS` that are applied to the evaluation split.

    Raises:
      ConfigError: a name, seed, effect or config is invalid.
    """

    question: str
    config: ConfigDict
    variants: Mapping[str, Variant]
    seeds: Sequence[int]
    smallest_effect: float
    baseline: str = 'none'
    corruptions: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.variants:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f'Variant {name!r}: expected lowercase letters, digits and underscores.'
                )
        if self.baseline not in self.variants:
            raise ConfigError(
                f'baseline={self.baseline!r} is not among the variants: {", ".join(self.variants)}.'
            )
        if not self.smallest_effect > 0:
            raise ConfigError(
                f'smallest_effect={self.smallest_effect}: expected points of accuracy above 0.'
            )
        if not self.seeds:
            raise ConfigError('seeds is empty; expected at least one, as range(10).')
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f'seeds={list(self.seeds)} has a seed twice; a pair counts once.')
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise ConfigError(
                    f'corruptions has {name!r}, which is unknown; choose among '
                    f'{", ".join(CORRUPTIONS)}.'
                )
        for name in self.variants:
            try:
                for seed in self.seeds:
                    check(self.run_config(name, seed))
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise ConfigError(f'Variant {name!r}: {one_line(error)}') from error

    def runs(self) -> Iterator[tuple[str, int]]:
        """(variant, seed), one seed after the other, so that pairs are completed early."""
        for seed in self.seeds:
            for name in self.variants:
                yield name, seed

    def run_config(self, variant: str, seed: int) -> ConfigDict:
        """The config of one run."""
        config = ConfigDict(self.config).copy_and_resolve_references()
        config.update_from_flattened_dict(dict(self.variants[variant].overrides))
        config.seed = seed
        config.eval_every_steps = _NEVER  # the last step is evaluated in any case
        return config


def load_study(path: str | Path) -> Study:
    """Calls `get_study()` of a Python file, which may import files next to it.

    Raises:
      ConfigError: the file cannot be run or defines no study.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f'--study={path} is not a file; expected one as studies/digits.py.')
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        get_study = runpy.run_path(str(path)).get('get_study')
        study = get_study() if get_study else None
    except ConfigError:
        raise
    except Exception as error:  # whatever the file raises
        raise ConfigError(
            f'--study={path} fails: {type(error).__name__}: {one_line(error)}'
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(study, Study):
        came = f'returns {type(study).__name__}' if get_study else 'does not exist'
        raise ConfigError(f'--study={path}: expected get_study() -> Study, but it {came}.')
    return study
