"""Names of datasets."""

import re


def without_version(name: str) -> str:
    """The name of a dataset without version and variant.

    >>> without_version('imagenet2012:5.*.*')
    'imagenet2012'
    """
    return name.partition(':')[0].partition('/')[0]


def plain_name(name: str) -> str:
    """The name of a dataset without version, variant and the size of its copies.

    >>> plain_name('imagenet2012_336px_q90')
    'imagenet2012'
    """
    return re.sub(r'_\d+px.*', '', without_version(name))
