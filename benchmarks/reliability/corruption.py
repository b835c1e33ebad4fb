r"""Damages checkpoints in many ways, resumes, and checks detection and the restored state.

    python benchmarks/reliability/corruption.py \
      --out=benchmarks/results/reliability/corruption.json

A run of 30 steps leaves checkpoints of steps 20, 25 and 30. Each kind of damage is applied to a
copy of its folder, nearly always to the newest checkpoint, which then resumes up to step 40. It
must name the damage, resume from the newest good checkpoint, and end exactly as an undamaged,
uninterrupted run of 40 steps. Unreported damage is 'harmless' if the run ends so too, and
'incorrect' otherwise. If no good checkpoint is left, it must stop with exit code 2 instead, twice,
since the second attempt must not start over.
"""

import argparse
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from outcomes import differences, outcome
from processes import Start, never_broken, saved_steps
from trials import Trials, arguments, conclude, scratch

FLAGS = (
    '--config.log_every_steps=5',
    '--config.checkpoint_every_steps=5',
    '--config.eval_every_steps=10',
    '--config.optimizer.schedule=constant',  # independent of the number of steps
)
SHORT, LONG = '--config.num_train_steps=30', '--config.num_train_steps=40'
OLDER, NEWEST = 25, 30


def data_files(checkpoint: Path) -> list[Path]:
    """The files with the arrays, largest first."""
    files = [path for path in checkpoint.rglob('d/*') if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path.name))


def change(edit: Callable[[bytearray], None], checkpoint: Path, name: str = '') -> None:
    """Edits the bytes of a file, by default of the largest data file."""
    path = checkpoint / name if name else data_files(checkpoint)[0]
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)


def flip(content: bytearray, *, at: float = 0.5) -> None:
    """Flips a bit; `at` is 0 for the first byte, 1 for the last."""
    content[round(at * (len(content) - 1))] ^= 1


def cut(content: bytearray, *, keep: Callable[[int], int]) -> None:
    del content[keep(len(content)) :]


def zero_page(content: bytearray) -> None:
    """Zeros a page, as if the disk block was never written."""
    begin = len(content) // 2 // 4096 * 4096
    content[begin : begin + 4096] = bytes(len(content[begin : begin + 4096]))


def exchange(checkpoint: Path) -> None:
    first, second = data_files(checkpoint)[:2]
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


def make_folder(checkpoint: Path) -> None:
    path = data_files(checkpoint)[0]
    path.unlink()
    path.mkdir()


def make_file(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.write_bytes(b'')


def empty_files(checkpoint: Path) -> None:
    """Empties all files, as after a power failure that loses contents but not names."""
    for path in checkpoint.rglob('*'):
        if path.is_file():
            path.write_bytes(b'')


def take_from_older(checkpoint: Path, name: str = '') -> None:
    """Replaces a file or folder by that of the older checkpoint."""
    other = checkpoint.parent / str(OLDER)
    source = other / name if name else data_files(other)[0]
    target = checkpoint / name if name else data_files(checkpoint)[0]
    if source.is_dir():
        shutil.rmtree(target)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


# Kinds of damage to the newest checkpoint.
WAYS: dict[str, Callable[[Path], None]] = {
    'largest data file cut to a half': partial(change, partial(cut, keep=lambda size: size // 2)),
    'largest data file cut to nothing': partial(change, partial(cut, keep=lambda size: 0)),
    'largest data file cut by a byte': partial(change, partial(cut, keep=lambda size: size - 1)),
    'bit flipped at the start of the largest data file': partial(change, partial(flip, at=0)),
    'bit flipped in the middle of the largest data file': partial(change, flip),
    'bit flipped at the end of the largest data file': partial(change, partial(flip, at=1)),
    'page of the largest data file zeroed': partial(change, zero_page),
    'bytes added to the largest data file': partial(change, lambda content: content.extend(b'0')),
    'largest data file deleted': lambda checkpoint: data_files(checkpoint)[0].unlink(),
    'smallest data file deleted': lambda checkpoint: data_files(checkpoint)[-1].unlink(),
    'largest data file replaced by a folder': make_folder,
    'largest data file replaced by that of an older checkpoint': take_from_older,
    'contents of two data files exchanged': exchange,
    **{
        f'bit flipped in {name}': partial(change, flip, name=name)
        for name in (
            'default/manifest.ocdbt',
            'default/_METADATA',
            'default/_sharding',
            'default/array_metadatas/process_0',
            'default/checksums.json',
            '_CHECKPOINT_METADATA',
        )
    },
    **{
        f'{name} deleted': lambda checkpoint, name=name: (checkpoint / name).unlink()
        for name in ('default/manifest.ocdbt', 'default/checksums.json', '_CHECKPOINT_METADATA')
    },
    'default/manifest.ocdbt replaced by that of an older checkpoint': partial(
        take_from_older, name='default/manifest.ocdbt'
    ),
    'default/ deleted': lambda checkpoint: shutil.rmtree(checkpoint / 'default'),
    'default/ replaced by that of an older checkpoint': partial(take_from_older, name='default'),
    'everything replaced by an older checkpoint': partial(take_from_older, name='.'),
    'all files emptied': empty_files,
    'folder emptied': empty,
    'folder replaced by a file': make_file,
}


def damage_all(checkpoint: Path) -> None:
    for step in saved_steps(checkpoint.parents[1]):
        change(flip, checkpoint.parent / str(step))


# Kinds of damage after which the run must stop; also called with the newest checkpoint.
REFUSED: dict[str, Callable[[Path], None]] = {
    'bit flipped in every checkpoint': damage_all,
    'all checkpoints deleted': lambda checkpoint: empty(checkpoint.parent),
    'config.json emptied': lambda checkpoint: change(
        bytearray.clear, checkpoint.parents[1], 'config.json'
    ),
}

# Damage outside of checkpoints that a run repairs without a message.
REPAIRED: dict[str, Callable[[Path], None]] = {
    f'{name} cut within its last line': lambda checkpoint, name=name: change(
        partial(cut, keep=lambda size: size - 9), checkpoint.parents[1], name
    )
    for name in ('metrics.jsonl', 'starts.jsonl')
}


def resume(workdir: Path, way: str, reference: dict[str, Any]) -> dict[str, Any]:
    """Resumes a damaged run that must continue."""
    with Start(workdir, *FLAGS, LONG) as start:
        code = start.finish()
    said = re.search(rf'^.*\bstep {NEWEST} is damaged.*$', start.output + start.errors, re.M)
    problems = differences(workdir, reference) if code == 0 else [start.last_words]
    if said and start.resumed_from != OLDER:
        problems.append(f'it resumed from step {start.resumed_from}, not {OLDER}')
    if said and not (workdir / 'damaged' / str(NEWEST)).exists():
        problems.append('the damaged checkpoint was not moved away')
    if not said and way in WAYS and not problems and start.resumed_from != NEWEST:
        problems.append(f'it silently resumed from step {start.resumed_from}')
    unnoticed = 'repaired' if way in REPAIRED else 'harmless'
    return {
        'way': way,
        'verdict': 'incorrect' if problems else 'detected' if said else unnoticed,
        'exit_code': code,
        'resumed_from': start.resumed_from,
        'said': start.short(said[0]) if said else '',
        'problems': problems,
    }


def refuse(workdir: Path, way: str) -> dict[str, Any]:
    """Tries twice to resume a damaged run that must refuse."""
    problems = []
    for _ in range(2):
        before = saved_steps(workdir)
        with Start(workdir, *FLAGS, LONG) as start:
            code = start.finish()
        if code != 2:
            problems.append(f'it ended with {code}: {start.last_words}')
        if saved_steps(workdir) != before:
            problems.append('it changed the checkpoints')
    return {
        'way': way,
        'verdict': 'incorrect' if problems else 'refused',
        'exit_code': code,
        'resumed_from': None,
        'said': start.last_words,
        'problems': problems,
    }


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--only', default='', help='only kinds of damage whose name contains this')


def main() -> None:
    ways = {**WAYS, **REPAIRED, **REFUSED}
    args, began = arguments(__doc__, len(ways), 'ways', _more), time.perf_counter()
    chosen = [way for way in ways if args.only in way][: args.count]
    with scratch(args.folder) as folder, Trials('ways', len(chosen)) as trials:
        trials.note('undamaged runs')
        never_broken(folder / 'reference', *FLAGS, LONG)
        reference = outcome(folder / 'reference')
        never_broken(folder / 'short', *FLAGS, SHORT)
        if saved_steps(folder / 'short')[-2:] != [OLDER, NEWEST]:
            raise SystemExit(f'Unexpected checkpoints: {saved_steps(folder / "short")}')
        for number, way in enumerate(chosen):
            trials.note(way)
            workdir = folder / f'damaged{number}'
            shutil.copytree(folder / 'short', workdir)
            ways[way](workdir / 'checkpoints' / str(NEWEST))
            trials.add(refuse(workdir, way) if way in REFUSED else resume(workdir, way, reference))
            shutil.rmtree(workdir)
    conclude(args, began, trials.records, flags=FLAGS)


if __name__ == '__main__':
    main()
