"""The classes of ImageNet-1k."""

import functools
from pathlib import Path


@functools.cache
def imagenet_names() -> dict[str, str]:
    """'tench' for 'n01440764', and so on: torchvision's short names, which are distinct."""
    lines = (Path(__file__).parent / 'imagenet_names.txt').read_text().splitlines()
    return dict(line.split(' ', 1) for line in lines)
