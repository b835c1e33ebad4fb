"""Names of classes that people can read."""

import functools
from pathlib import Path


def readable(class_name: str) -> str:
    """'tench' for ImageNet's 'n01440764'; other names as they are."""
    return _imagenet_names().get(class_name, class_name)


@functools.cache
def _imagenet_names() -> dict[str, str]:
    """By WordNet's numbers; the short names are torchvision's, no two of which are the same."""
    lines = (Path(__file__).parent / 'imagenet_names.txt').read_text().splitlines()
    return dict(line.split(' ', 1) for line in lines)
