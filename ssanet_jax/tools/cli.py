"""Runs a command whose user may make mistakes: one line to stderr and exit code 2."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ssanet_jax.checks import check, check_overrides, unknown_field
from ssanet_jax.config import ConfigError, base, flatten


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and calls main(argv); exits with 2 on a wrong flag or ConfigError.

    Libraries log warnings and errors only, unless --verbosity asks for more.
    """

    def quiet_main(argv: list[str]) -> None:
        if not flags.FLAGS['verbosity'].present:
            logging.set_verbosity(logging.WARNING)
        main(argv)

    try:
        app.run(quiet_main, flags_parser=_parse_flags)
    except ConfigError as error:
        print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
        sys.exit(2)


def recipe(argv: list[str]) -> ConfigDict:
    """The checked config of --config and its overrides, for a tool that has no other argument."""
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    config = flags.FLAGS.config
    check_overrides(config, config_flags.get_override_values(flags.FLAGS['config']))
    check(config)
    return config


def _parse_flags(argv: Sequence[str]) -> list[str]:
    _check_config_flags(argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        message = str(error).replace('\n', ' ').removesuffix('.')
        raise ConfigError(f'{message}. --help lists the flags.') from error


def _check_config_flags(argv: Sequence[str]) -> None:
    """Checks what ml_collections answers with a traceback: --config=FILE and --config.NAME=..."""
    known = flatten(base())
    for argument, following in zip(argv[1:], [*argv[2:], ''], strict=False):
        name, equals, value = argument.lstrip('-').partition('=')
        value = value if equals else following
        if name == 'config' and not Path(value.partition(':')[0]).is_file():
            recipes = sorted(str(path) for path in Path('configs').glob('*.py'))
            raise ConfigError(f'--config={value} is no file; recipes here: {", ".join(recipes)}.')
        if name.startswith('config.') and name.removeprefix('config.') not in known:
            raise ConfigError(unknown_field(name.removeprefix('config.')))
