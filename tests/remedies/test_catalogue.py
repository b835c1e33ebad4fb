"""Every message that offers a remedy has a test of it here, or a reason why it has none.

Names in messages (flags, fields, commands, extras, files) are checked in all of them.
"""

import ast
import functools
import importlib
import re
import tomllib

from ssanet_jax.config.fields import FIELDS
from ssanet_jax.tools import cli
from ssanet_jax.tools.commands import COMMANDS
from tests.helpers import ROOT, own_flags

SOURCES = sorted((ROOT / 'ssanet_jax').rglob('*.py'))
OFFERS = re.compile(
    r'\b(add|check|choose|convert|correct|create|drop|free|give|install|leave it|lengthen|lower|'
    r'make|move|name|omit|or set|pass|put|raise|remove|rename|repair|restore|rerun|run|set|'
    r'shorten|start|use|write)\b(?! (that|which|cannot))',
    re.IGNORECASE,
)

# Remedies that a test cannot apply, and why: a person, a machine or other files are needed.
BY_HAND = {
    'set it in the recipe': 'references of a recipe',
    # Files are restored, repaired or removed by a person.
    'Repair them.': 'files',
    'Grant permission, or move it elsewhere': 'files',
    'restore a copy': 'files',
    'check the disk': 'a failing disk',
    'Check the disk': 'a failing disk',
    'Remove it and run the study again': 'days of training',
    'free some space': 'a full disk',
    # A package is installed; a test below checks its extra.
    'pip install': 'a package',
    # Another folder, file, host or network is chosen, which may be any.
    'Pass other files': 'any files',
    'pass image files': 'any files',
    'Or pass any image files': 'any files',
    'choose a file in an existing folder': 'any file',
    'is not an empty folder; choose another': 'any folder',
    'Choose another host or port': 'any port',
    'name the boxes by full path': 'any path',
    'expected some in': 'a study',
    'choose a run of a network with attention': 'any such run',
    'choose a network with attention': 'any such network',
    'Choose another format, or add the rule': 'code',
    'Give the number of classes: --num_classes': 'other weights',
    'give more of the name': 'a longer name',
    'use the weights from before quantization': 'other weights',
    'has only one checkpoint; omit': 'tests/pretrained/test_folder.py',
    # The message is about an argument of a Python function and says its type.
    'pass images or batches': 'an argument',
    'pass batches of images': 'an argument',
    'make them with data.file_batches': 'an argument',
    'drop --nopreprocessing': 'an argument',
    'Compute in {}': 'an argument',
    'choose another.': 'any file or folder',
    'Move their folders away': 'files',
    'is not a name': 'another file',
    'Try again, or put the file there': 'tests/pretrained/test_hosted.py',
    'Run hf auth login': 'an account of the Hub',
    'make it private on its page': 'an account of the Hub',
    'name the license with --license': 'tests/publish/test_card.py',
    'Repair or remove them, or go on': 'tests/training/test_data_check.py',
    # Other hosts are started.
    'Start every host with the same command': 'other hosts',
    'start all hosts again': 'other hosts',
    'Start all hosts with the same': 'other hosts',
    'Start it, or correct --coordinator': 'other hosts',
    'On a single machine, add': 'tests/training/test_connect.py',
    # Commands that run for long, or only say what to run again.
    'Lower the learning rate and run the study': 'days of training',
    'Check that commit out': 'another commit',
    'Fix the cause and run the same command again': 'any cause',
    'use a named function': 'code',
    'Run the same command': 'tests/training/test_preemption.py',
    'are not known without the data; add': 'tests/tools/test_preflight.py',
    'Give --study=FILE to train': 'tests/study/test_runner.py',
    'holds no evaluation of this run': 'more training',
    # A disk, a host or a process changes.
    'Free some space or reconnect': 'a full disk',
    'Free some space or grant permission': 'a full disk',
    'Grant permission or reconnect the disk': 'a failing disk',
    'Nothing was lost; run the same command again': 'a failing disk',
    'run the same command again once it can be read': 'a failing disk',
    'remove /tmp/libtpu_lockfile': 'tests/tools/test_preflight.py',
    'Start all hosts again': 'other hosts',
    'Lower the batch size (': "a device's memory",
    'lower --config.eval_batch_size': 'tests/tools/test_preflight.py',
    'keeps few checkpoints': 'tests/training/test_checkpoint_reader.py',
    'leaves out the CPU': 'tests/test_runtime.py',
    # Another dataset or file is needed.
    'choose a dataset for image classification': 'any such dataset',
    'restore the dataset that it was trained on': 'tests/report/test_page.py',
    'Put the four files named': 'files',
    'Where it was made, save': 'other weights',
    'name the weights, and write them': 'other weights',
    'run git lfs pull': 'another file',
    'convert it: weights.save': 'tests/weights/test_files.py',
    'restore them with flax.serialization': 'tests/weights/test_files.py',
    # Any value that is accepted; other tests pass some.
    'shorten the cool-down or lengthen': 'tests/training/test_schedules.py',
    'give one factor for each epoch': 'tests/config/malformed.py',
    "choose 'auto', which folds where it can": 'tests/models/test_tail_choice.py',
    'choose a new --out': 'tests/study/test_description.py',
    'Expected --weights with either --model': 'tests/tools/test_convert_torch.py',
    'Expected either --workdir, a run, or --model': 'tests/tools/test_predict.py',
    'Give --workdir, the run to publish': 'tests/publish/test_publish.py',
}


def literal(node):
    """The text of a string or f-string, with '{}' for what is inserted."""
    parts = [
        part.value if isinstance(part, ast.Constant) else '{}'
        for part in (node.values if isinstance(node, ast.JoinedStr) else [node])
    ]
    return ''.join(str(part) for part in parts)


def strings(node):
    """Texts of the strings of an expression or a module, without docstrings."""
    nodes, left_out = list(ast.walk(node)), set()
    for inner in nodes:
        body = getattr(inner, 'body', None)
        if isinstance(body, list) and isinstance(body[0], ast.Expr):
            left_out.add(body[0].value)
        elif isinstance(inner, ast.JoinedStr):
            left_out.update(inner.values)
    for inner in nodes:
        text = isinstance(inner, ast.Constant) and isinstance(inner.value, str)
        if (text or isinstance(inner, ast.JoinedStr)) and inner not in left_out:
            yield literal(inner)


@functools.cache
def trees():
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in SOURCES}


def makes_an_error(node):
    name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
    return name.endswith('Error')


def is_constant(node):
    """Whether a statement assigns strings; tables of fields, commands and layers are left out."""
    others = ast.Call | ast.Dict | ast.Set
    return isinstance(node, ast.Assign) and not any(isinstance(n, others) for n in ast.walk(node))


def messages(tree):
    """(line, text) of each error that is raised or made, and of the constants of the module."""
    raised = {node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (node in raised or makes_an_error(node)):
            yield node.lineno, ' '.join(strings(node))
    for node in filter(is_constant, tree.body):
        yield from ((node.lineno, text) for text in strings(node) if ' ' in text)


@functools.cache
def offers():
    """(place, text) of each message that offers a remedy."""
    return [
        (f'{path}:{line}', text)
        for path, tree in trees().items()
        for line, text in messages(tree)
        if OFFERS.search(text)
    ]


def phrases():
    """The strings of the tests in this folder that are more than a name."""
    for path in (ROOT / 'tests/remedies').glob('test_*.py'):
        if path.name != 'test_catalogue.py':
            texts = strings(ast.parse(path.read_text()))
            yield from (text for text in texts if len(text) > 6 and re.search(r'\w[ =]', text))


def test_every_remedy_is_applied_or_listed_with_the_reason():
    known = {*phrases(), *BY_HAND}
    missing = [f'{place}: {text}' for place, text in offers() if not any(p in text for p in known)]
    assert not missing, '\n'.join(missing)


def test_the_tests_that_are_named_exist():
    named = [test for test in BY_HAND.values() if test.startswith('tests/')]
    assert [test for test in named if not (ROOT / test).is_file()] == []


def test_the_list_has_no_message_that_is_gone():
    offered = [text for _, text in offers()]
    assert [phrase for phrase in BY_HAND if not any(phrase in t for t in offered)] == []


@functools.cache
def texts():
    return [(str(path), text) for path, tree in trees().items() for text in strings(tree)]


def mentioned(pattern):
    """(file, name) of each name in a string of the package that matches a pattern."""
    return sorted({(path, name) for path, text in texts() for name in re.findall(pattern, text)})


def test_every_field_that_is_named_exists():
    known = {*FIELDS, *(name.rpartition('.')[0] for name in FIELDS)}
    pattern = r'(?<![\w./])config\.([a-z]\w*(?:\.[a-z]\w*)*)(?![\w.({\[]*\{\})'
    found = mentioned(pattern)
    assert len(found) > 30
    assert [pair for pair in found if pair[1] not in {*known, 'json', 'FIELD'}] == []


def test_every_flag_that_is_named_exists():
    known = {'help', 'traceback', 'version'}
    known |= {'logdir', 'porcelain', 'short', 'upgrade', 'xla_gpu_autotune_level'}  # of others
    for module in (importlib.import_module(f'ssanet_jax.tools.{name}') for name in COMMANDS):
        with own_flags(module):
            known |= set(cli.flags.FLAGS)
    found = mentioned(r'(?<![\w-])--([a-z][a-z_]+)(?![\w.-])')
    assert len(found) > 30
    assert [p for p in found if not {p[1], p[1].removeprefix('no')} & known] == []


def test_every_command_extra_and_file_that_is_named_exists():
    commands = mentioned(r'(?<![\w.])(?:(?:ssanet_jax\.)?tools\.|ssanet )([a-z_]+)(?![\w.])')
    assert {name for _, name in commands} <= set(COMMANDS)
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    for path, extras in mentioned(r'ssanet-jax\[([a-z][\w,-]+)\]'):
        assert set(extras.split(',')) <= set(project['optional-dependencies']), path
    files = mentioned(r'(?<![\w/])((?:docs|configs|studies|launch)/\w+\.\w+)')
    assert files
    assert [pair for pair in files if not (ROOT / pair[1]).exists()] == []
