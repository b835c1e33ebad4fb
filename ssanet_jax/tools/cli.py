"""Runs a command whose user may make mistakes: one line to stderr and an exit code."""

import contextlib
import os
import re
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from logging import LogRecord
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ssanet_jax import runtime
from ssanet_jax.config import base
from ssanet_jax.config.fields import field_types
from ssanet_jax.config.validation import check_names, check_overrides, unknown_field
from ssanet_jax.errors import ConfigError, HostLostError, RunError, StoppedError

flags.DEFINE_bool('traceback', False, 'Show where an error was raised, besides its one line.')


_NEEDS_MEMORY = (
    'Lower the batch size (--config.batch_size, or --batch_size of a tool), or set '
    'config.dtype=bfloat16.'
)

ARGV: list[str] = []  # what is parsed; ml_collections would look at sys.argv when it is imported


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and calls main(argv); exits with 2 on a wrong flag or ConfigError.

    Other errors have the codes of `ssanet_jax.errors`. Libraries log warnings and errors only,
    unless --verbosity asks for more.
    """

    def quiet_main(argv: list[str]) -> None:
        if not flags.FLAGS['verbosity'].present:
            logging.set_verbosity(logging.WARNING)
            logging.get_absl_handler().addFilter(_not_raised_too)
        main(argv)

    try:
        app.run(quiet_main, flags_parser=_parse_flags)
    except (ConfigError, RunError) as error:
        _leave(error)
    except BrokenPipeError:  # whoever read the output has enough, as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _leave(StoppedError('Interrupted before there was anything to save.'))
    except Exception as error:
        if str(error).startswith('RESOURCE_EXHAUSTED'):  # of an accelerator, or XLA's on a CPU
            memory = ' '.join(str(error).split())[:200]
            _leave(RunError(f'{memory} {_NEEDS_MEMORY}'))
        if not jax.distributed.is_initialized():
            raise
        from ssanet_jax.training import parallel  # imports optax

        if not parallel.host_lost(error):
            _leave(error)
        traceback.print_exception(error)
        reason = ' '.join(str(error).split())[:300]
        _leave(
            HostLostError(
                f'Another host was lost: {reason} Its own log says why; checkpoints are as they '
                'were. Start all hosts again with the same command.'
            )
        )


def _not_raised_too(record: LogRecord) -> bool:
    """False for what Orbax and asyncio log of errors that they raise besides."""
    return not {'orbax', 'asyncio'} & set(Path(record.pathname).parts)


def _leave(error: Exception) -> NoReturn:
    """Exits with the error's code; at once, where other hosts might be waited for in vain."""
    code = getattr(error, 'exit_code', 1)
    with contextlib.suppress(OSError):  # stderr may be closed
        if '--traceback' in sys.argv or not hasattr(error, 'exit_code'):
            traceback.print_exception(error)
        text = ' '.join(str(error).splitlines())
        print(f'{Path(sys.argv[0]).name}: {text}', file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        if jax.process_index() == 0:  # the others' runtime aborts when the first host is gone
            time.sleep(2)
        os._exit(code)
    sys.exit(code)


def obey_interrupts() -> None:
    """Ctrl-C and SIGTERM end this process with the code of a run that is to be started again.

    A KeyboardInterrupt would be lost in a destructor or a callback of a library, and a run that is
    only starting would go on.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupted)


def _interrupted(number: int, frame: object) -> None:
    name = signal.Signals(number).name
    text = f'Stopped by {name}. What was saved is as it was; run the same command to go on.'
    with contextlib.suppress(OSError):
        print(f'{Path(sys.argv[0]).name}: {text}', file=sys.stderr, flush=True)
    os._exit(StoppedError.exit_code)


def start_tensorflow() -> None:
    """Imports it without a word, leaves GPUs to JAX, and keeps what JAX compiles.

    It only reads images, and what it cannot read is reported by whoever asked for it.
    """
    # Not by setdefault: importing JAX has set another level.
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    runtime.enable_compilation_cache()


def use_cpu() -> None:
    """Has JAX compute on the CPU, unless the environment's JAX_PLATFORMS says otherwise.

    The variable itself would be too late: the package imports JAX before any command runs.
    """
    if 'JAX_PLATFORMS' not in os.environ:
        jax.config.update('jax_platforms', 'cpu')


def recipe(argv: list[str]) -> ConfigDict:
    """The checked config of --config and its overrides, for a tool that has no other argument."""
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    config = flags.FLAGS.config
    check_overrides(config, config_flags.get_override_values(flags.FLAGS['config']))
    return config


class _RecipeParser(flags.ArgumentParser):
    """Reads --config=FILE, or FILE:ARGUMENT for its get_config(ARGUMENT)."""

    def parse(self, argument: str) -> ConfigDict:
        file, colon, given = argument.partition(':')
        try:
            get_config = runpy.run_path(file).get('get_config')
            if not callable(get_config):
                raise ConfigError(f'{file} has no function get_config(); see configs/.')
            config = get_config(*([given] if colon else []))
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # whatever a recipe does
            raise ConfigError(_in_recipe(file, error)) from error
        if type(config) is not ConfigDict:
            raise ConfigError(
                f'{file}: get_config() returned {type(config).__name__}, not a ConfigDict; begin '
                'it with config = base() and end it with return config.'
            )
        check_names(config)
        return config.lock()


def _in_recipe(file: str, error: BaseException) -> str:
    """'configs/x.py, line 12: TypeError: ...; correct the recipe.'"""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    message, remedy = str(error), 'correct the recipe.'
    if isinstance(error, SyntaxError):
        lines = [error.lineno] if error.filename == file else lines
        message = error.msg
    elif not lines:
        remedy = 'choose --config=FILE or --config=FILE:ARGUMENT, as its get_config() wants it.'
    place = f'{file}, line {lines[-1]}' if any(lines) else file
    message = ' '.join(f'{type(error).__name__}: {message}'.split()).removesuffix(':')[:300]
    return f'{place}: {message}; {remedy}'


def _parse_flags(argv: Sequence[str]) -> list[str]:
    ARGV[:] = argv
    try:
        _check_config_flags(argv)
        if 'config' in flags.FLAGS:
            flags.FLAGS['config'].parser = _RecipeParser()
        return flags.FLAGS(argv)
    except ConfigError:
        raise
    except Exception as error:  # flags.Error, and what ml_collections and absl do not catch
        if isinstance(error.__context__, ConfigError):
            raise error.__context__ from error.__context__.__cause__
        message = ' '.join(str(error).split())[:400].rstrip('.? ')
        raise ConfigError(f'{message}. --help lists the flags.') from error


def _check_config_flags(argv: Sequence[str]) -> None:
    """Checks what absl and ml_collections do not say in a line, or take for something else."""
    kinds = field_types(base())
    recipe, seen = '', set()
    for name, value in _given(argv, kinds):
        field = re.sub('^(no)?config[.]', '', name)
        if value.startswith('~') and '.' not in name:
            raise ConfigError(f'--{name}={value}: the shell leaves this ~ as it is; write $HOME.')
        if name == 'config':
            if not Path(value.partition(':')[0]).is_file():
                recipes = ', '.join(sorted(str(path) for path in Path('configs').glob('*.py')))
                raise ConfigError(f'--config={value} is no file; recipes here: {recipes}.')
            if recipe:
                raise ConfigError(f'--config={recipe} and --config={value}: give only one of them.')
            recipe = value
        elif field != name:
            if field not in kinds:
                raise ConfigError(unknown_field(field))
            if not recipe:
                raise ConfigError(f'--{name} must come after --config=FILE, which it changes.')
            if kinds[field] is tuple and (field in seen or value.startswith('{')):
                raise ConfigError(f'--{name}={value}: write the whole tuple at once, as "(1, 2)".')
            seen.add(field)


def _given(argv: Sequence[str], kinds: Mapping[str, type]) -> Iterator[tuple[str, str]]:
    """The flags with their values as absl will take them; '' where none is needed."""
    arguments = iter(flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False))
    for argument in arguments:
        if argument == '--':
            return  # absl reads no flag after this
        if not argument.startswith('-') or argument == '-':
            continue
        name, equals, value = argument.removeprefix('-').removeprefix('-').partition('=')
        if name.startswith('config.'):
            needed = kinds.get(name.removeprefix('config.')) is not bool
        else:
            needed = name in flags.FLAGS and not flags.FLAGS[name].boolean
        if needed and not equals:
            value = next(arguments, '')
        missing = not value or (not equals and re.match('--?[a-z]', value))
        if missing and (needed or equals):
            raise ConfigError(f'--{name} has no value; write --{name}=VALUE, or leave it out.')
        if not f'{name}{value}'.isprintable():
            shown = f'--{name}={value}'
            raise ConfigError(f'{shown!r} has characters that cannot be printed; type it anew.')
        yield name, value
