"""Names and shapes of a network's variables in other libraries."""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

Replacement = str | Callable[[re.Match[str]], str]

_NEVER = '(?!)'
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}


class NameMapping(NamedTuple):
    """Maps the path of a variable, as `layer1_0/bn1/scale`, to its name in another library.

    Attributes:
      rules: regular expressions and their replacements in the path of the module, applied in
        order; then `/` becomes `.`, and kernel, scale, mean and var get torch's names.
      as_conv: matches names of dense kernels that are 1x1 convolutions there.
      as_linear: matches names of dense kernels over [H, W, C] that are flat there.
      unused: matches names of weights that the other library has but never reads.
    """

    rules: Sequence[tuple[str, Replacement]] = ()
    as_conv: str = _NEVER
    as_linear: str = _NEVER
    unused: str = _NEVER

    def name(self, path: Sequence[str]) -> str:
        """Name of the variable at `path` in the other library."""
        *modules, leaf = path
        name = '/'.join(modules) + '/'
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name.replace('/', '.') + _LEAVES.get(leaf, leaf)

    def shape(self, name: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of variable `name` there, output channels first, from its shape here."""
        if len(shape) == 1:
            return tuple(shape)
        *window, inner, outer = shape
        if re.search(self.as_linear, name):
            return outer, inner * math.prod(window)
        if not window and re.search(self.as_conv, name):
            window = [1, 1]
        return outer, inner, *window
