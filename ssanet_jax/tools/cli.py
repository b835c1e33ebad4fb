"""Shared main() of all commands: flags, recipes, one-line errors, exit codes."""

import contextlib
import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from logging import LogRecord
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ssanet_jax import runtime
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.config.validation import check_overrides, unknown_field
from ssanet_jax.errors import (
    ConfigError,
    HostLostError,
    RunError,
    StoppedError,
    file_errors,
    nearest,
    one_line,
    reason_of,
)
from ssanet_jax.output import lossy, open_standard_streams, print_error, printable
from ssanet_jax.runtime import StopSignals
from ssanet_jax.tools.recipes import RecipeParser, with_config_of_workdir
from ssanet_jax.training.multihost import hosts

flags.disclaim_key_flags()  # --help lists flags defined here as those of the command

_NEEDS_MEMORY = (
    'Lower the batch size (--config.batch_size, or --batch_size of a tool), or set '
    'config.dtype=bfloat16.'
)


@contextlib.contextmanager
def writing_out(*others: type[Exception]) -> Iterator[None]:
    """Turns an error of files, or one of `others`, into a ConfigError about --out."""
    try:
        yield
    except file_errors(*others) as error:
        reason = reason_of(error)
        raise ConfigError(f'--out={flags.FLAGS.out} cannot be written: {reason}.') from error


def run(main: Callable[..., None], define_flags: Callable[[], None]) -> None:
    """Runs a command and exits with its code.

    An invalid flag or a ConfigError exits with 2, other errors as `ssanet_jax.errors` says, each
    with one line on stderr. Libraries log warnings and errors only, unless --verbosity asks for
    more.

    Args:
      main: takes nothing, or the list of arguments that are not flags.
      define_flags: defines the flags of the command.
    """
    open_standard_streams()
    # --help prints it.
    sys.modules['__main__'].__doc__ = main.__globals__['__doc__']
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
            argv = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
            _check_fields(argv)
            parser = flags.FLAGS['config'].parser
            if isinstance(parser, RecipeParser) and parser.from_workdir:
                argv = with_config_of_workdir(argv)
        arguments = flags.FLAGS(argv)[1:]
    except ConfigError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise ConfigError(_unknown_flag(error.flagname)) from error
    except (AttributeError, KeyError, TypeError, ValueError, flags.Error) as error:
        if isinstance(error.__context__, ConfigError):  # absl rewords those of a parser
            raise error.__context__ from error.__context__.__cause__
        message = one_line(error).rstrip('.? ')
        raise ConfigError(f'{message}. --help lists the flags.') from error
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present and flag.value == '':
            raise ConfigError(f'--{name} has no value; write --{name}=VALUE, or leave it out.')
        if flag.present > 1 and not (flag.boolean or name.startswith('config.')):
            raise ConfigError(f'--{name} is given {flag.present} times; give it once.')
    return arguments


def call(main: Callable[..., None], arguments: list[str]) -> None:
    """Calls `main`, with `arguments` if it takes them; else raises ConfigError for any."""
    if inspect.signature(main).parameters:
        main(arguments)
    elif arguments:
        raise ConfigError(f'Unexpected argument {arguments[0]!r}: every option begins with --.')
    else:
        main()


def define_config(
    text: str = 'Recipe, a name or a file, or the config.json of a run.',
    *,
    required: bool = True,
    from_workdir: bool = False,
) -> None:
    """Defines --config=RECIPE, RECIPE:ARGUMENT for get_config(ARGUMENT), and --config.FIELD.

    Args:
      text: for --help.
      required: whether the command needs it.
      from_workdir: whether it is the config of the run in --workdir if it is not given.
    """
    config_flags.DEFINE_config_file('config', None, text)
    flags.FLAGS['config'].parser = RecipeParser(from_workdir=from_workdir)
    if required:
        flags.mark_flag_as_required('config')


def recipe() -> ConfigDict:
    """The config of --config with its overrides, checked."""
    config = flags.FLAGS.config
    check_overrides(config, config_flags.get_override_values(flags.FLAGS['config']))
    return config


def obey_interrupts() -> None:
    """Makes Ctrl-C, SIGTERM and SIGHUP exit at once, with the code that asks for a restart.

    Libraries lose a KeyboardInterrupt that is raised in a destructor or a callback, and Python sees
    none while it waits for other hosts.
    """
    StopSignals(_interrupted).start()


def _interrupted(number: int) -> None:
    name = signal.Signals(number).name
    text = f'Stopped by {name}. Saved files are intact; run the same command to resume.'
    hosts.leave(text, StoppedError.exit_code)
    print_error(text)
    os._exit(StoppedError.exit_code)


def _call_quietly(main: Callable[..., None], arguments: list[str]) -> None:
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)
        logging.get_absl_handler().addFilter(_not_raised_too)
    logging.get_absl_handler().addFilter(_make_printable)
    call(main, arguments)


def _not_raised_too(record: LogRecord) -> bool:
    """Filters out log records of Orbax and asyncio for errors that they also raise."""
    return not {'orbax', 'asyncio'} & set(Path(record.pathname).parts)


def _make_printable(record: LogRecord) -> bool:
    """Escapes names in a log record; it changes the record and keeps it."""
    if isinstance(record.args, tuple):
        names = (str, os.PathLike)
        record.args = tuple(printable(x) if isinstance(x, names) else x for x in record.args)
    return True


def _leave_unexpected(error: Exception) -> NoReturn:
    """Exits after an error that is neither a ConfigError nor a RunError."""
    if str(error).startswith('RESOURCE_EXHAUSTED'):
        _leave(ConfigError(f'{one_line(error, 200)} {_NEEDS_MEMORY}'))
    if message := runtime.missing_device():
        _leave(ConfigError(message))
    if not jax.distributed.is_initialized():
        raise error
    if not hosts.host_lost(error):
        _leave(error)
    traceback.print_exception(error)
    _leave(
        HostLostError(
            f'Another host was lost: {one_line(error).rstrip(".")}. Its own log says why; '
            'checkpoints are intact. Start all hosts again with the same command.'
        )
    )


def _leave(error: Exception) -> NoReturn:
    """Prints the error and exits, on all hosts."""
    code = getattr(error, 'exit_code', 1)
    if flags.FLAGS['traceback'].value or not hasattr(error, 'exit_code'):
        traceback.print_exception(error, file=lossy(sys.stderr))
    hosts.leave(str(error), code)
    print_error(str(error))
    sys.exit(code)


def _unknown_flag(name: str) -> str:
    known = list(flags.FLAGS)
    if 'config' in known:
        known += [f'config.{field}' for field in FIELDS]
    return f'--{name} does not exist; nearest: {nearest(name, known)}. --help lists the flags.'


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
