"""Observes or replaces the calls of a network's modules."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import flax.linen as nn


class ModuleCall(NamedTuple):
    """A call of a bound module's method; calling it runs the method with the original arguments.

    Attributes:
      path: of the module, 'layer1_0/bn1'; '' for the network.
      module: bound, so that its sown values can be read after the call.
      args, kwargs: of the method.
      method: runs the module with other arguments.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    method: Callable[..., Any]

    def __call__(self) -> Any:
        return self.method(*self.args, **self.kwargs)


@contextmanager
def on_call(hook: Callable[[ModuleCall], Any], method: str | None = '__call__') -> Iterator[None]:
    """Context manager in which `hook` replaces a method of every bound module; None: all methods.

    The hook's result replaces that of the method. Unbound modules, asked for their attributes
    only, run as they are.

    >>> import jax
    >>> paths = []
    >>> def note(call):
    ...     paths.append(call.path)
    ...     return call()
    >>> with on_call(note):
    ...     variables = nn.Dense(2).init(jax.random.key(0), jax.numpy.ones((1, 3)))
    >>> paths
    ['']
    """

    def intercept(
        run: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if module.scope is None or method not in (None, context.method_name):
            return run(*args, **kwargs)
        return hook(ModuleCall('/'.join(module.path), module, args, kwargs, run))

    with nn.intercept_methods(intercept):
        yield
