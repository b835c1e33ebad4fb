"""The command `ssanet`, whose subcommands are files of this folder."""

import runpy
import sys

from ssanet_jax.errors import nearest
from ssanet_jax.output import print_error
from ssanet_jax.tools import name_extra
from ssanet_jax.version import __version__

# The first line of each docstring: --help imports none of them.
COMMANDS = {
    'check_data': (
        "Reads every image of a recipe's dataset: classes, sizes, bad files, duplicates, leakage."
    ),
    'checkpoints': 'Lists, verifies, prunes or exports the checkpoints of a run.',
    'convert_torch': (
        "Converts weights between torch files, other libraries' namings and runs of this package."
    ),
    'demo': 'A web page for a trained network: drop an image, see its classes and where it looks.',
    'evaluate': (
        'Evaluates a trained network on other test sets: ImageNet ReaL, V2, A, R, Sketch, C, ...'
    ),
    'export': 'Exports a trained network, loads it back and verifies its logits.',
    'gates': (
        "Prints statistics of a trained network's gates and, with --ablation, the effect of each."
    ),
    'input_doctor': (
        "Finds the bottleneck of a recipe's training on this machine, and suggests settings."
    ),
    'nonfinite': 'Names the first module that turned non-finite in a run that diverged.',
    'predict': 'Prints the most probable classes of images, by a trained network.',
    'preflight': (
        "Compiles a recipe's training and evaluation steps for TPUs or GPUs that are not here."
    ),
    'prepare': 'Downloads and prepares a dataset through TFDS, or converts a prepared one.',
    'publish': 'Writes a trained network as a folder for the Hugging Face Hub, and uploads it.',
    'report': (
        'Writes a one-file page about a run: results, curves, confusions, calibration, gates, cost.'
    ),
    'saliency': (
        'Draws where a trained network looks in images: the map of each stage, and Grad-CAM.'
    ),
    'show_batch': 'Draws an augmented batch with its labels, as the network sees it.',
    'study': 'Trains variants of a network, paired by seed, and compares them.',
    'summary': (
        "Prints a network's layers with their shapes, parameters and multiply-accumulates (MACs)."
    ),
    'train': 'Trains an SSANet, or evaluates a checkpoint.',
}


def main() -> None:
    """Runs the subcommand that sys.argv names; exits with 2 if there is none of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name == '--version':
        print(f'ssanet {__version__}')
    elif name in ('-h', '--help', 'help', ''):
        print('usage: ssanet COMMAND [--FLAG=VALUE ...]\n')
        print('\n'.join(f'  {name:14}{text}' for name, text in COMMANDS.items()))
        print('\nssanet COMMAND --help describes a command and its flags.')
        sys.exit(0 if name else 2)
    elif name not in COMMANDS:
        known = nearest(name, COMMANDS)
        print_error(f'{name} is not a command; nearest: {known}. ssanet --help lists all.')
        sys.exit(2)
    else:
        sys.argv[:2] = [f'ssanet {name}']  # as errors and --help call it
        run(name)


def run(name: str) -> None:
    """Runs `ssanet NAME` with the flags in sys.argv, as `python -m ssanet_jax.tools.NAME` does."""
    sys.excepthook = name_extra
    runpy.run_module(f'ssanet_jax.tools.{name}', run_name='__main__')
