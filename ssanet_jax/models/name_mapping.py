"""How other libraries name the variables of a network."""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

Replacement = str | Callable[[re.Match[str]], str]

_NEVER = '(?!)'
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}


class NameMapping(NamedTuple):
    """Takes the path of a variable here, as `layer1_0/bn1/scale`, to its name elsewhere.

    Attributes:
      rules: regular expressions and what replaces them in the path of the module, one after the
        other; then `/` becomes `.`, and kernel, scale, mean and var take torch's names.
      as_conv: matches names whose dense kernels are 1x1 convolutions there.
      as_linear: matches names whose dense kernels over [H, W, C] are flat there.
      unused: matches names of weights that the other code has and never reads.
    """

    rules: Sequence[tuple[str, Replacement]] = ()
    as_conv: str = _NEVER
    as_linear: str = _NEVER
    unused: str = _NEVER

    def name(self, path: Sequence[str]) -> str:
        """The other name of the variable at `path`."""
        *modules, leaf = path
        name = '/'.join(modules) + '/'
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name.replace('/', '.') + _LEAVES.get(leaf, leaf)

    def shape(self, name: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape there, output channels first, of what is called `name` and has `shape` here."""
        if len(shape) == 1:
            return tuple(shape)
        *window, inner, outer = shape
        if re.search(self.as_linear, name):
            return outer, inner * math.prod(window)
        if not window and re.search(self.as_conv, name):
            window = [1, 1]
        return outer, inner, *window
