"""metrics.jsonl: one JSON object a line, which a value that is not finite enters as null."""

import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from ssanet_jax.errors import ConfigError


def line(step: int, split: str, **values: float) -> str:
    return json.dumps({'step': step, 'split': split, **finite(values)}) + '\n'


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows no NaN: None in place of what is not finite."""
    return {name: v if math.isfinite(v) else None for name, v in values.items()}


def lines_up_to(workdir: epath.Path, step: int) -> str:
    """The text of metrics.jsonl without lines of later steps."""
    return ''.join(line(**found) for found in read_metrics(workdir) if found['step'] <= step)


def read_metrics(workdir: epath.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, if there are any, without a last one that was cut off.

    A null is NaN again. Raises ConfigError where a line is none.
    """
    path = workdir / 'metrics.jsonl'
    try:
        lines = path.read_text().split('\n') if path.exists() else ['']
        parsed = [dict(json.loads(line)) for line in lines[:-1]]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f'{path} is damaged: {error}. Put a copy back, or choose a new workdir.'
        ) from error
    return [{k: math.nan if v is None else v for k, v in line.items()} for line in parsed]
