"""Recipes of the command line: --config=RECIPE, and the config of a run that is read again."""

import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.config import with_defaults
from ssanet_jax.config.validation import check_names
from ssanet_jax.errors import ConfigError, nearest, one_line
from ssanet_jax.training.storage.workdir import Workdir


class RecipeParser(flags.ArgumentParser):
    """Makes a config of RECIPE, of RECIPE:ARGUMENT, or of the config.json of a run.

    RECIPE is a file, or the name of one in configs/.

    Args:
      from_workdir: whether the command reads the config of --workdir if --config is not given.
    """

    def __init__(self, *, from_workdir: bool = False):
        self.from_workdir = from_workdir

    def parse(self, argument: str) -> ConfigDict:
        if argument.endswith('.json'):
            return with_defaults(Workdir(epath.Path(argument).parent).read_config()).lock()
        name, colon, parameter = argument.partition(':')
        file = _find(name)
        config = _call_get_config(file, [parameter] if colon else [])
        if type(config) is not ConfigDict:
            raise ConfigError(
                f'{file}: get_config() returned {type(config).__name__}, not a ConfigDict; begin '
                'it with config = base() and end it with return config.'
            )
        check_names(config)
        return config.lock()


def shipped() -> dict[str, Path]:
    """The files of configs/ by name: `imagenet_ssa50` and so on."""
    package = Path(__file__).parents[1]
    folders = [package / 'configs', package.parent / 'configs']  # of a wheel, of a checkout
    files = next(folder for folder in folders if folder.is_dir()).glob('*.py')
    return {file.stem: file for file in sorted(files)}


def _find(name: str) -> str:
    """The file of a recipe; raises ConfigError."""
    if Path(name).is_file():
        return name
    recipes = shipped()
    if name not in recipes:
        raise ConfigError(
            f'--config={name} is neither a file nor a recipe; nearest: '
            f'{nearest(Path(name).stem, recipes)}.'
        )
    return str(recipes[name])


def with_config_of_workdir(argv: Sequence[str]) -> list[str]:
    """Adds --config=WORKDIR/config.json to a command line without --config; raises ConfigError."""
    workdir = _value(argv, 'workdir')
    if not workdir or _value(argv, 'config') is not None:
        return list(argv)
    saved = Workdir(workdir).config
    if not saved.exists():
        raise ConfigError(f'{workdir} holds no run to read the config of; add --config=RECIPE.')
    return [argv[0], f'--config={saved}', *argv[1:]]


def _value(argv: Sequence[str], name: str) -> str | None:
    """The value of a flag on a command line, or None."""
    for argument, following in zip(argv, [*argv[1:], ''], strict=True):
        flag, equals, value = argument.partition('=')
        if flag in (f'--{name}', f'-{name}'):
            return value if equals else following
    return None


def _call_get_config(file: str, arguments: list[str]) -> Any:
    try:
        get_config = runpy.run_path(file).get('get_config')
        if callable(get_config):
            return get_config(*arguments)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # whatever a recipe does
        raise ConfigError(_in_recipe(file, error)) from error
    raise ConfigError(f'{file} has no function get_config(); see configs/.')


def _in_recipe(file: str, error: BaseException) -> str:
    """'configs/x.py, line 12: TypeError: ...; correct the recipe.'"""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    message, remedy = str(error), 'correct the recipe.'
    if isinstance(error, SyntaxError):
        lines = [error.lineno] if error.filename == file else lines
        message = error.msg
    elif not lines:
        remedy = 'choose --config=RECIPE or --config=RECIPE:ARGUMENT, as its get_config() expects.'
    place = f'{file}, line {lines[-1]}' if any(lines) else file
    return f'{place}: {one_line(f"{type(error).__name__}: {message}").removesuffix(":")}; {remedy}'
