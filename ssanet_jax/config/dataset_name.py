"""Names of datasets."""

import re


def plain_name(name: str) -> str:
    """The dataset without its version, variant and size: that of TFDS, or of a folder.

    >>> plain_name('imagenet2012:5.*.*'), plain_name('imagenet2012_336px_q90')
    ('imagenet2012', 'imagenet2012')
    """
    return re.sub(r'_\d+px.*', '', name.partition(':')[0].partition('/')[0])
