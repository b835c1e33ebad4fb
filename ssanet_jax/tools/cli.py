"""Shared main() of all commands: flags, recipes, one-line errors, exit codes."""

import contextlib
import inspect
import os
import re
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from logging import LogRecord
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ssanet_jax import runtime
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.config.validation import check_names, check_overrides, unknown_field
from ssanet_jax.errors import ConfigError, HostLostError, RunError, StoppedError, one_line

flags.disclaim_key_flags()  # --help lists flags defined here as those of the command

_NEEDS_MEMORY = (
    'Lower the batch size (--config.batch_size, or --batch_size of a tool), or set '
    'config.dtype=bfloat16.'
)


def run(main: Callable[..., None], define_flags: Callable[[], None]) -> None:
    """Runs a command and exits with its code.

    An invalid flag or a ConfigError exits with 2, other errors as `ssanet_jax.errors` says, each
    with one line on stderr. Libraries log warnings and errors only, unless --verbosity asks for
    more.

    Args:
      main: takes nothing, or the list of arguments that are not flags.
      define_flags: defines the flags of the command.
    """
    try:
        flags.DEFINE_bool('traceback', False, 'Also print the traceback of an error.')
        define_flags()
        app.run(lambda arguments: _call_quietly(main, arguments), flags_parser=parse)
    except (ConfigError, RunError) as error:
        _leave(error)
    except flags.Error as error:  # a flagfile that cannot be read
        _leave(ConfigError(f'{one_line(error)}.'))
    except BrokenPipeError:  # the reader of the output, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _leave(StoppedError('Interrupted before there was anything to save.'))
    except Exception as error:
        _leave_unexpected(error)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the flags in `argv`; returns the other arguments.

    Raises:
      ConfigError: the mistake, in one line.
    """
    try:
        if 'config' in flags.FLAGS:
            _check_fields(flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False))
        arguments = flags.FLAGS(argv)[1:]
    except ConfigError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, flags.Error) as error:
        if isinstance(error.__context__, ConfigError):  # absl rewords those of a parser
            raise error.__context__ from error.__context__.__cause__
        message = one_line(error).rstrip('.? ')
        raise ConfigError(f'{message}. --help lists the flags.') from error
    for name in flags.FLAGS:
        if flags.FLAGS[name].present and flags.FLAGS[name].value == '':
            raise ConfigError(f'--{name} has no value; write --{name}=VALUE, or leave it out.')
    return arguments


def call(main: Callable[..., None], arguments: list[str]) -> None:
    """Calls `main`, with `arguments` if it takes them; else raises ConfigError for any."""
    if inspect.signature(main).parameters:
        main(arguments)
    elif arguments:
        raise ConfigError(f'Unexpected argument {arguments[0]!r}: every option begins with --.')
    else:
        main()


def define_config(text: str = 'Recipe, one of configs/.', *, required: bool = True) -> None:
    """Defines --config=FILE, or FILE:ARGUMENT for its get_config(ARGUMENT), and --config.FIELD."""
    config_flags.DEFINE_config_file('config', None, text)
    flags.FLAGS['config'].parser = _RecipeParser()
    if required:
        flags.mark_flag_as_required('config')


def recipe() -> ConfigDict:
    """The config of --config with its overrides, checked."""
    config = flags.FLAGS.config
    check_overrides(config, config_flags.get_override_values(flags.FLAGS['config']))
    return config


def obey_interrupts() -> None:
    """Makes Ctrl-C and SIGTERM exit at once, with the exit code that asks for a restart.

    Libraries lose a KeyboardInterrupt that is raised in a destructor or a callback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupted)


def _interrupted(number: int, frame: object) -> None:
    name = signal.Signals(number).name
    _print_error(f'Stopped by {name}. Saved files are intact; run the same command to resume.')
    os._exit(StoppedError.exit_code)


def _call_quietly(main: Callable[..., None], arguments: list[str]) -> None:
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)
        logging.get_absl_handler().addFilter(_not_raised_too)
    call(main, arguments)


def _not_raised_too(record: LogRecord) -> bool:
    """Filters out log records of Orbax and asyncio for errors that they also raise."""
    return not {'orbax', 'asyncio'} & set(Path(record.pathname).parts)


def _leave_unexpected(error: Exception) -> NoReturn:
    """Exits after an error that is neither a ConfigError nor a RunError."""
    if str(error).startswith('RESOURCE_EXHAUSTED'):
        _leave(RunError(f'{one_line(error, 200)} {_NEEDS_MEMORY}'))
    if message := runtime.missing_device():
        _leave(ConfigError(message))
    if not jax.distributed.is_initialized():
        raise error
    from ssanet_jax.training import parallel  # imports optax

    if not parallel.host_lost(error):
        _leave(error)
    traceback.print_exception(error)
    _leave(
        HostLostError(
            f'Another host was lost: {one_line(error)} Its own log says why; checkpoints are '
            'intact. Start all hosts again with the same command.'
        )
    )


def _leave(error: Exception) -> NoReturn:
    """Prints the error and exits; other hosts may be lost, so several do not wait for them."""
    code = getattr(error, 'exit_code', 1)
    if flags.FLAGS['traceback'].value or not hasattr(error, 'exit_code'):
        with contextlib.suppress(OSError):  # stderr may be closed
            traceback.print_exception(error)
    _print_error(str(error))
    if jax.distributed.is_initialized():
        if jax.process_index() == 0:  # The other processes abort when the first one is gone.
            time.sleep(2)
        os._exit(code)
    sys.exit(code)


def _print_error(text: str) -> None:
    with contextlib.suppress(OSError):
        line = ' '.join(text.splitlines())
        print(f'{Path(sys.argv[0]).name}: {line}', file=sys.stderr, flush=True)


def _check_fields(argv: Sequence[str]) -> None:
    """Checks overrides for mistakes that ml_collections accepts, or reports at length."""
    seen = set()
    for argument in argv:
        flag, _, value = argument.partition('=')
        if not (match := re.fullmatch('--?(?:no)?config[.](.*)', flag)):
            continue
        name = match[1]
        if name not in FIELDS:
            raise ConfigError(unknown_field(name))
        if FIELDS[name].is_tuple and (name in seen or value.startswith('{')):
            raise ConfigError(f'{argument}: write the whole tuple at once, as "(1, 2)".')
        seen.add(name)


class _RecipeParser(flags.ArgumentParser):
    def parse(self, argument: str) -> ConfigDict:
        file, colon, parameter = argument.partition(':')
        if not Path(file).is_file():
            recipes = ', '.join(sorted(str(path) for path in Path('configs').glob('*.py')))
            raise ConfigError(f'--config={argument} is not a file; recipes here: {recipes}.')
        config = _call_get_config(file, [parameter] if colon else [])
        if type(config) is not ConfigDict:
            raise ConfigError(
                f'{file}: get_config() returned {type(config).__name__}, not a ConfigDict; begin '
                'it with config = base() and end it with return config.'
            )
        check_names(config)
        return config.lock()


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
        remedy = 'choose --config=FILE or --config=FILE:ARGUMENT, as its get_config() expects.'
    place = f'{file}, line {lines[-1]}' if any(lines) else file
    return f'{place}: {one_line(f"{type(error).__name__}: {message}").removesuffix(":")}; {remedy}'
