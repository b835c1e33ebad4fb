"""What `ssanet preflight` knows of a dataset without reading it: sizes, and how fast it decodes."""

from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from ssanet_jax.config.dataset_name import plain_name
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.errors import ConfigError

FLAGS = flags.FLAGS

# Classes and examples of each split, so that nothing needs to be prepared.
DATASETS: dict[str, tuple[int, dict[str, int]]] = {
    'imagenet2012': (1000, {'train': 1_281_167, 'validation': 50_000}),
    'cifar10': (10, {'train': 50_000, 'test': 10_000}),
    'cifar100': (100, {'train': 50_000, 'test': 10_000}),
    'fashion_mnist': (10, {'train': 60_000, 'test': 10_000}),
    'fashion_mnist_idx': (10, {'train': 60_000, 'test': 10_000}),
    'digits': (10, {'train': 1437, 'test': 360}),
}


class Sizes(NamedTuple):
    """Of the dataset; num_eval is None if unknown."""

    num_classes: int
    num_train: int
    num_eval: int | None


# Images/s of the whole input on one core: "ours, array_record" in benchmarks/results/input.json,
# random crops of 500x375 JPEGs as ImageNet's, half of that of two cores.
DECODE_RATE = 1443.0


def dataset_sizes(config: ConfigDict) -> Sizes:
    """The sizes of `config.dataset`, from the flags or known; raises ConfigError."""
    dataset = config.dataset
    name = plain_name(dataset.name)
    num_classes, splits = DATASETS.get(name, (None, {}))
    num_classes = FLAGS.num_classes or num_classes
    num_train = FLAGS.num_train_examples or splits.get(dataset.train_split)
    if num_classes is None or num_train is None:
        unknown = {'num_classes': num_classes, 'num_train_examples': num_train}
        missing = [f'--{flag}=N' for flag, value in unknown.items() if value is None]
        raise ConfigError(
            f'The sizes of {dataset.name}, split {dataset.train_split!r}, are not known without '
            f'the data; add {" and ".join(missing)}.'
        )
    num_eval = FLAGS.num_eval_examples or splits.get(dataset.eval_split)
    return Sizes(num_classes, num_train, num_eval)


def size_notes(config: ConfigDict) -> list[str]:
    """Sentences on the sizes that the numbers stand for, where images differ in size."""
    size, first = config.dataset.image_size, config.dataset.initial_size
    notes = []
    if eval_size(config.dataset) != size:
        notes.append(f'Images of the evaluation step have {eval_size(config.dataset)} pixels.')
    if 0 < first < size:
        notes.append(
            f'Training images grow from {first} to {size} pixels. All numbers are for {size}, '
            'those of the schedule too: most memory, and more time than smaller images need.'
        )
    return notes


def host_decode_rate(config: ConfigDict) -> float | None:
    """Images per second that one host core prepares; None if not measured for such a dataset."""
    if FLAGS.decode_rate:
        return FLAGS.decode_rate
    small = config.dataset.in_memory or config.dataset.train_crop != 'resized'
    return None if small else DECODE_RATE
