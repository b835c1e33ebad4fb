"""What input_doctor concludes from its measurements: the bottleneck, and settings to try."""

import math
import re
from typing import NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.config.sizes import eval_size
from ssanet_jax.data.builders import prepare_command
from ssanet_jax.data.sources import num_cores


class Rates(NamedTuple):
    """Images per second of each part alone; None for a dataset in memory."""

    read: float | None
    decode: float | None  # and crop
    input: float  # everything up to batches in host memory
    transfer: float
    step: float
    together: float


def verdict(rates: Rates, cores: int, settings: list[str]) -> list[str]:
    """Names the bottleneck and what would remove it.

    >>> rates = Rates(9000.0, 2000.0, 1800.0, 50000.0, 3000.0, 1750.0)
    >>> print(*verdict(rates, 2, []))
    The input is the bottleneck: it delivers 1,800 images/s; the training step could take 3,000
    (1.7 times as many). Its slowest part is decoding. About 4 cores like these 2 would keep up.
    """
    surplus = rates.input / rates.step
    if rates.transfer < min(rates.input, rates.step):
        return [
            f'The transfer to the devices is the bottleneck: {rates.transfer:,.0f} images/s; the '
            f'training step could take {rates.step:,.0f}.'
        ]
    if surplus >= 1:
        near = ' It is close: other work on these cores may reverse it.' if surplus < 1.2 else ''
        return [
            f'The training step is the bottleneck: it takes {rates.step:,.0f} images/s; the input '
            f'could deliver {rates.input:,.0f} ({surplus:.1f} times as many).{near}'
        ]
    lines = [
        f'The input is the bottleneck: it delivers {rates.input:,.0f} images/s; the training step '
        f'could take {rates.step:,.0f} ({1 / surplus:.1f} times as many).'
    ]
    enough = f'About {math.ceil(cores / surplus)} cores like these {cores} would keep up.'
    if rates.read is None or rates.decode is None:
        lines.append(enough)
    elif rates.read < rates.decode:
        lines.append('Its slowest part is reading. A faster or local disk would help most.')
    else:
        lines.append(f'Its slowest part is decoding. {enough}')
    return [*lines, *settings]


def advice(config: ConfigDict, hint: str) -> list[str]:
    """Settings that would speed up this recipe's input."""
    dataset = config.dataset
    settings: list[str] = []
    if dataset.train_crop == 'resized' and dataset.antialias:
        settings.append('--config.dataset.antialias=False resizes several times as fast.')
    if dataset.in_memory:
        return settings
    if 0 < dataset.num_threads < num_cores():
        settings.append('--config.dataset.num_threads=-1 would use all cores.')
    size = max(dataset.image_size, eval_size(dataset))
    side = 3 * math.ceil(size / dataset.eval_crop_pct) // 2
    if dataset.name != 'folder' and not re.search(r'_\d+px', dataset.name):
        settings.append(
            f'Smaller files decode faster; {prepare_command(dataset)} --short_side={side} makes a '
            'copy of them.'
        )
    return [*settings, hint] if hint else settings
