"""Malformed and inconsistent configs and command lines: by hand, and made from every field."""

from collections.abc import Iterator
from typing import NamedTuple

from ssanet_jax.config import base, flatten


class Case(NamedTuple):
    """A mistake.

    Attributes:
      name: unique; the same in every process.
      flags: all arguments of main.py, in which {config}, {workdir} and {data} are to be replaced.
      recipe: the text of {config}; None: configs/digits_ssa20.py.
      late: it is found by what the config describes (network, data, checkpoints), not in the
        config itself.
    """

    name: str
    flags: list[str]
    recipe: str | None = None
    late: bool = False


START = ['--config={config}', '--workdir={workdir}', '--config.dataset.data_dir={data}']

_RECIPE = """from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import required_placeholder

from configs.digits_ssa20 import get_config as digits


def get_config():
    config = digits()
    {}
    return config
"""

# Whole command lines.
_COMMANDS = [
    [],
    ['--workdir={workdir}'],
    ['--config={config}'],
    ['--config', '--workdir={workdir}'],
    ['--workdir={workdir}', '--config'],
    ['--config=', '--workdir={workdir}'],
    ['--config={config}', '--workdir='],
    ['--config={config}', '--workdir'],
    ['--config={config}', '--workdir', ''],
    ['--config={config}', '--workdir', '--config.batch_size=32'],
    ['--config={config}', '-workdir', '--config.batch_size=32'],
    ['--config={config}', '--workdir=~/runs'],
    ['--config={config}', '--workdir=~'],
    ['--config={config}', '--workdir=a\nb'],
    ['--config={config}', '--workdir=a\u00a0b'],
    ['--config.batch_size=32', '--config={config}', '--workdir={workdir}'],
    ['--config.batch_size=32', '--workdir={workdir}'],
    ['--noconfig.dataset.flip', '--config={config}', '--workdir={workdir}'],
    ['--config=configs', '--workdir={workdir}'],
    ['--config=configs/', '--workdir={workdir}'],
    ['--config=configs/digits_ssa20', '--workdir={workdir}'],
    ['--config=configs.digits_ssa20', '--workdir={workdir}'],
    ['--config=digits_ssa20.py', '--workdir={workdir}'],
    ['--config=/dev/null', '--workdir={workdir}'],
    ['--config=~/configs/digits_ssa20.py', '--workdir={workdir}'],
    ['--config={config}:64', '--workdir={workdir}'],
    ['--config={config}:', '--workdir={workdir}'],
    ['--config={config}', '--config=configs/cifar10_ssa50.py', '--workdir={workdir}'],
    ['--config={config}', 'spare', '--workdir={workdir}'],
    ['--config', '{config}', '--workdir', '{workdir}', 'config.seed=3'],
    ['--flagfile=nowhere.txt', '--config={config}', '--workdir={workdir}'],
    ['--flagfile={config}', '--workdir={workdir}'],
]

# What follows START.
_FLAGS = [
    ['--bach_size=3'],
    ['--batch_size=3'],
    ['--work-dir=runs'],
    ['--confg=configs/digits_ssa20.py'],
    ['---config.batch_size=3'],
    ['\u2014config.batch_size=3'],
    ['config.batch_size=3'],
    ['spare'],
    ['-', '--config.seed=3'],
    ['--', '--config.seed=3'],
    ['--config.batch_size'],
    ['--config.batch_size='],
    ['--config.batch_size', '--config.seed=3'],
    ['--config.batch_size', '= 3'],
    ['--config.batch_size=1e3'],
    ['--config.batch_size=64.0'],
    ['--config.batch_size=6 4'],
    ['--config.batch_size=9' + '9' * 5000],
    ['--config.batch_size=1048576', '--config.dataset.image_size=4096'],
    ['--config.=3'],
    ['--config..batch_size=3'],
    ['--config.batch_size.x=3'],
    ['--config.seeds=3'],
    ['--config.Seed=3'],
    ['--config.model=3'],
    ['--config.model=resnet50'],
    ['--config.model={"name": "resnet20"}'],
    ['--config.model.ssa=None'],
    ['--config.model.name[0]=x'],
    ['--config.model["name"]=x'],
    ['--config.ssa.groups=2'],
    ['--config.optimizer=adamw'],
    ['--config.optimizer.lr=0.1'],
    ['--config.dataset=cifar10'],
    ['--config.to_dict=1'],
    ['--config.model.to_dict=1'],
    ['--noconfig.batch_size'],
    ['--noconfig.dataset.flop'],
    ['--noconfig.dataset'],
    ['--noconfig.dataset.flip=true'],
    ['--noconfig'],
    ['--config.dataset.flip', 'false'],
    ['--config.dataset.flip='],
    ['--config.dataset.mean=(0.5,0.5)'],
    ['--config.dataset.mean=0.5'],
    ['--config.dataset.mean=(0.5, 0.5, "0.5")'],
    ['--config.dataset.mean=(0.5, 0.5, None)'],
    ['--config.dataset.mean=[[0.5], [0.5], [0.5]]'],
    ['--config.dataset.mean={0.485, 0.456, 0.406}'],
    ['--config.dataset.mean=(123.675, 116.28, 103.53)'],
    ['--config.dataset.mean=0.5', '--config.dataset.mean=0.5', '--config.dataset.mean=0.5'],
    ['--config.dataset.mean=b"abc"'],
    ['--config.dataset.std=(58.395, 57.12, 57.375)'],
    ['--config.dataset.std=(0.2, 0.2, 0.0)'],
    ['--config.dataset.std=' + '(' * 500],
    ['--config.optimizer.schedule=step', '--config.optimizer.decay_epochs=(30, 20)'],
    ['--config.optimizer.schedule=step', '--config.optimizer.decay_epochs=(30, 30)'],
    ['--config.optimizer.schedule=step', '--config.optimizer.decay_epochs=(30 40)'],
    ['--config.optimizer.schedule=step', '--config.optimizer.decay_epochs=thirty'],
    ['--config.optimizer.schedule=step', '--config.optimizer.decay_epochs=' + '-' * 5000 + '1'],
    ['--config.optimizer.schedule=step', '--config.optimizer.decay_epochs=(30000, 60000)'],
    ['--config.optimizer.schedule=step', '--config.optimizer.warmup_epochs=30'],
    ['--config.optimizer.decay_epochs=(30,)'],
    ['--config.optimizer.decay_factor=0.5'],
    ['--config.optimizer.b1=0.8'],
    ['--config.optimizer.name=adamw', '--config.optimizer.momentum=0.8'],
    ['--config.optimizer.name=adamw', '--config.optimizer.nesterov'],
    ['--config.dataset.crop_area=(0.5, 1)'],
    ['--config.dataset.train_crop=resized', '--config.dataset.crop_padding=2'],
    ['--config.dataset.crop_padding=8'],
    ['--config.model.se.ratio=8'],
    ['--config.model.name=resnet20', '--config.model.ssa.groups=2'],
    ['--config.init.head=new'],
    ['--config.init.attention=insert'],
    ['--config.num_epochs=3', '--config.num_train_steps=30'],
    ['--config.profile_num_steps=3'],
    ['--mode=test'],
    ['--mode='],
    ['--checkpoint='],
    ['--verbosity=loud'],
    ['--process_id=x'],
    ['--process_id=-1', '--num_processes=2', '--coordinator_address=a:1'],
    ['--num_processes=0'],
]

# What follows START, and is found by the network, the data, the hosts or the checkpoints.
_LATE = [
    ['--config.optimizer.warmup_epochs=60'],
    ['--config.profile_start_step=100000'],
    ['--config.model.batch_norm_group_size=3'],
    ['--config.optimizer.train_only=*/nothing/*'],
    ['--config.model.name=ssa_resnt20'],
    ['--config.model.name=ResNet20'],
    ['--config.model.name=ssa'],
    ['--config.model.name=ssa_'],
    ['--config.model.name=resnet20_ssa'],
    ['--config.model.name=abc_resnet20'],
    ['--config.model.name=vgg16'],
    ['--config.model.name=ssa_vgg16', '--config.model.tail=plain'],
    ['--config.model.variant=v1'],
    ['--config.model.name=resnet20', '--config.model.attention_stages=1'],
    ['--config.model.attention_stages=7'],
    ['--config.model.attention_stages=()'],
    ['--config.model.attention_blocks=99'],
    ['--config.model.ssa.groups=3'],
    ['--config.model.ssa.groups=0'],
    ['--config.model.ssa.groups=2', '--config.model.ssa.channels_per_map=2'],
    ['--config.model.ssa.channels_per_map=-2'],
    ['--config.model.ssa.squeeze=median'],
    ['--config.model.ssa.combine=max'],
    ['--config.model.ssa.gate=tanh'],
    ['--config.model.name=se_resnet20', '--config.model.se.ratio=0'],
    ['--config.model.name=se_resnet20', '--config.model.se.ratio=1000'],
    ['--config.model.name=cbam_resnet20', '--config.model.cbam.kernel_size=4'],
    ['--config.model.name=eca_resnet20', '--config.model.eca.kernel_size=2'],
    ['--config.model.name=ge_resnet20', '--config.model.ge.extent=3'],
    ['--config.model.name=scse_resnet20', '--config.model.scse.combine=mean'],
    ['--config.dataset.name=digitss'],
    ['--config.dataset.name=digits:9.9.9'],
    ['--config.dataset.name=digits/none'],
    ['--config.dataset.name=../digits'],
    ['--config.dataset.name=imagenet2012'],
    ['--config.dataset.name=folder', '--config.dataset.in_memory=False'],
    ['--config.dataset.train_split=training'],
    ['--config.dataset.train_split=train[:0]'],
    ['--config.dataset.train_split=train[:'],
    ['--config.dataset.train_split=train[:200%]'],
    ['--config.dataset.eval_split=test[9:3]'],
    ['--config.dataset.eval_split=test+'],
    ['--config.dataset.data_dir=/proc/none'],
    ['--config.init.weights=nowhere.safetensors'],
    ['--config.init.weights={config}'],
    ['--mode=eval', '--checkpoint=99'],
    ['--mode=eval', '--checkpoint=newest'],
    ['--mode=eval', '--checkpoint=-1'],
    ['--mode=eval', '--checkpoint=init'],
    ['--workdir={config}'],
    ['--workdir=/dev/null/run'],
    ['--workdir=/proc/run'],
    ['--process_id=1'],
    ['--coordinator_address=a:1', '--num_processes=2'],
    ['--process_id=2', '--num_processes=2', '--coordinator_address=a:1'],
]  # fmt: skip

_TEXTS = {
    'empty': '',
    'not python': 'batch_size: 64\nmodel:\n  name: ssa_resnet20\n',
    'syntax': 'def get_config(:\n    return 1\n',
    'open bracket': 'def get_config():\n    return (1\n',
    'indentation': 'def get_config():\nreturn 1\n',
    'tabs': 'def get_config():\n    x = 1\n\treturn x\n',
    'null bytes': 'def get_config():\n    return "\0"\n',
    'unknown encoding': '# -*- coding: nonsense -*-\n',
    'json': '{"batch_size": 64}\n',
    'exit': 'exit()\n',
    'exit code': 'import sys\nsys.exit(0)\n',
    'unknown import': 'import no_such_module\n',
    'unknown name': 'from ssanet_jax.config import bass\n',
    'no get_config': 'from ssanet_jax.config import base\nconfig = base()\n',
    'get_config is a value': 'from ssanet_jax.config import base\nget_config = base()\n',
    'main.py': 'import runpy\nrunpy.run_module("main")\n',
}

_LINES = [
    'raise ValueError',
    'raise ValueError("two\\nlines")',
    'raise OSError("no disk")',
    'raise UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")',
    'raise SystemExit',
    'assert config.batch_size == 1',
    'get_config()',
    '1 / 0',
    'open("nowhere.txt")',
    'undefined',
    'return None',
    'return config.to_dict()',
    'return FrozenConfigDict(config)',
    'return ConfigDict()',
    'return digits',
    'return [config]',
    'return config.model',
    'return "config"',
    'return lambda: config',
    'config.bach_size = 3',
    'config.lr = 0.1',
    'config.optimizer.learning_rat = 0.1',
    'config.optim.learning_rate = 0.1',
    'config.model.ssa.gruops = 2',
    'config["optimizer.learning_rate"] = 0.1',
    'config[3] = 3',
    'config.model = 3',
    'config.model = None',
    'config.model = "resnet20"',
    'config.model = ConfigDict({"name": "resnet20"})',
    'config.model.ssa = None',
    'config.optimizer = "adamw"',
    'config.batch_size = ConfigDict()',
    'del config.optimizer',
    'del config.seed',
    'del config.model.ssa.groups',
    'config.lock(); config.bach_size = 3',
    'config.batch_size = config.get_ref("seed") // config.get_ref("seed")',
    'config.model.name = required_placeholder(str)',
    'config.batch_size = config.get_ref("num_epochs")',
    'config.dataset.mean = (0.5, 0.5, 0.5, 0.5)',
    'config.dataset.mean = (True, 0.5, 0.5)',
    'config.dataset.mean = {0.1, 0.2, 0.3}',
    'config.dataset.mean = 0.5',
    'config.optimizer.train_only = "*/ssa/*"',
    'config.optimizer.train_only = ("",)',
    'config.optimizer.decay_epochs = 30',
    'config.optimizer.decay_epochs = [[30]]',
    'config.optimizer.schedule = "step"; config.optimizer.warmup_epochs = 30.0',
    'config.num_epochs = "90"',
    'config.num_epochs = 10**400',
    'config.batch_size = 64.0',
    'config.batch_size = 2**20; config.dataset.image_size = 4096',
    'config.dataset.crop_padding = 8',
]

OUT_OF_RANGE = {
    'seed': ('-1', '2147483648'),
    'batch_size': ('0', '-64', '1000000000000', '1048577'),
    'eval_batch_size': ('0', '-2', '1000000000000'),
    'num_epochs': ('0', '-1', '1e6'),
    'num_train_steps': ('0', '-2', '4294967296'),
    'eval_every_steps': ('0', '-2'),
    'checkpoint_every_steps': ('0', '-2'),
    'max_to_keep': ('0', '-1'),
    'log_every_steps': ('0', '-1'),
    'profile_start_step': ('0', '-2'),
    'profile_num_steps': ('0', '-1'),
    'max_loss': ('0', '-1'),
    'max_bad_steps': ('-1',),
    'dtype': ('float16', 'fp32', 'Float32'),
    'label_smoothing': ('1', '-0.1'),
    'dataset.train_crop': ('random',),
    'dataset.eval_crop': ('resized',),
    'dataset.image_size': ('0', '-8', '1000000'),
    'dataset.crop_padding': ('-1', '1000000'),
    'dataset.crop_area': ('(0, 1)', '(0.5, 2)', '(1, 0.5)', '(0.1, 0.5, 1)', '()'),
    'dataset.crop_aspect': ('(0, 1)', '(2, 1)', '(1,)'),
    'dataset.eval_crop_pct': ('0', '1.5', '0.001'),
    'dataset.interpolation': ('nearest',),
    'dataset.shuffle_buffer': ('0', '1000000000'),
    'dataset.num_threads': ('0', '100000'),
    'dataset.max_image_pixels': ('0',),
    'dataset.max_image_bytes': ('0',),
    'dataset.max_bad_fraction': ('-0.1', '1.1'),
    'dataset.bad_eval_images': ('skip',),
    'dataset.mean': ('(-0.1, 0.5, 0.5)', '()'),
    'dataset.std': ('(1e-30, 0.5, 0.5)', '(0.5, 0.5)'),
    'model.stem': ('big', 'none'),
    'model.variant': ('v2',),
    'model.tail': ('fast',),
    'model.attention_position': ('inside',),
    'model.batch_norm_group_size': ('0', '-2'),
    'model.batch_norm_momentum': ('1', '-0.1'),
    'model.batch_norm_epsilon': ('0', '-1e-5'),
    'model.dropout': ('1', '-0.5'),
    'model.cbam.kernel_size': ('0', '100001'),
    'model.eca.kernel_size': ('-1', '100001'),
    'model.eca.gamma': ('0', '1e-9'),
    'model.eca.beta': ('1e9',),
    'model.simam.regularizer': ('0', '-1e-4'),
    'init.attention': ('new',),
    'init.head': ('drop',),
    'optimizer.name': ('adam', 'SGD'),
    'optimizer.learning_rate': ('0', '-0.1', '1e39'),
    'optimizer.reference_batch_size': ('0', '-64'),
    'optimizer.momentum': ('1', '-0.9'),
    'optimizer.b1': ('1',),
    'optimizer.b2': ('1.5',),
    'optimizer.weight_decay': ('-1e-4',),
    'optimizer.decay_parameters': ('none',),
    'optimizer.schedule': ('linear',),
    'optimizer.warmup_epochs': ('-1',),
    'optimizer.decay_epochs': ('(0, 30)', '(-30, 30)'),
    'optimizer.decay_factor': ('0', '-0.1'),
}

_WRONG_TYPE = {
    bool: ('None', '3', '"yes"'),
    int: ('None', '"3"', '2.5'),
    float: ('None', '"0.1"', 'float("nan")', 'float("inf")'),
    str: ('3', '""', '"a\\nb"'),
    tuple: ('3', '(None,)', '("", 1.5)'),
}
_WRONG_TEXT = {bool: 'maybe', int: 'x', float: 'nan', str: '', tuple: '(1,'}


def cases() -> list[Case]:
    """All of them, in the same order always; each has a name of its own."""
    return [*_by_hand(), *_by_field()]


def _by_hand() -> Iterator[Case]:
    for number, flags in enumerate(_COMMANDS):
        yield Case(f'command {number}: {_short(flags)}', flags)
    for late, many in ((False, _FLAGS), (True, _LATE)):
        for flags in many:
            yield Case(f'flags: {_short(flags)}', [*START, *flags], late=late)
    for name, text in _TEXTS.items():
        yield Case(f'recipe: {name}', START, text)
    for line in _LINES:
        yield Case(f'recipe: {line}', START, _RECIPE.format(line))
    needs = 'def get_config(size):\n    return size\n'
    yield Case('recipe: needs an argument', START, needs)
    yield Case('recipe: returns its argument', ['--config={config}:3', *START[1:]], needs)


def _by_field() -> Iterator[Case]:
    for field, default in flatten(base()).items():
        holder, _, leaf = f'config.{field}'.rpartition('.')
        held = base() if holder == 'config' else base()[holder.removeprefix('config.')]
        kind = held.get_type(leaf)
        flag = f'--config.{field}={_WRONG_TEXT[kind]}'
        yield Case(f'{field}: {flag}', [*START, flag])
        yield Case(f'{field}: {flag[:-1]}', [*START, f'--config.{field[:-1]}=1'])
        for value in _WRONG_TYPE[kind]:
            if value != 'None' or default is not None:
                line = f'config.{field} = {value}'
                flags = START[:2] if leaf == 'data_dir' else START
                yield Case(f'recipe: {line}', flags, _RECIPE.format(line))
        for value in OUT_OF_RANGE.get(field, ()):
            yield Case(f'{field}: {value}', [*START, f'--config.{field}={value}'])


def _short(flags: list[str]) -> str:
    return ascii(' '.join(flags))[1:-1][:100]
