"""README.md of a published folder: a model card with the metadata that the Hub reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jinja2

from ssanet_jax.config import base, flatten
from ssanet_jax.config.dataset_name import plain_name, without_version
from ssanet_jax.export.program import initial_weights
from ssanet_jax.models.registry import split_name
from ssanet_jax.output import printable
from ssanet_jax.pretrained.hosted import hosted_weights
from ssanet_jax.pretrained.hub import require_hub
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.weights.matching import namings

# Dataset names on the Hub.
_DATASETS = {
    'cifar10': 'uoft-cs/cifar10',
    'cifar100': 'uoft-cs/cifar100',
    'fashion_mnist': 'zalando-datasets/fashion_mnist',
    'fashion_mnist_idx': 'zalando-datasets/fashion_mnist',
    'imagenet2012': 'ILSVRC/imagenet-1k',
}
_PATHS = {'dataset.data_dir', 'dataset.manual_dir'}
_SHOWN_CLASSES = 20
# Options of `create_model` with which evaluation computes the same.
_OF_TRAINING = {
    'dropout', 'dtype', 'norm_options', 'remat', 'stochastic_depth', 'tail', 'zero_init_residual'
}  # fmt: skip


class Metric(NamedTuple):
    """An accuracy, and the number of images that were correct."""

    name: str
    percent: float
    correct: int


class Results(NamedTuple):
    """The evaluation of a checkpoint on all images of a split."""

    split: str
    num_examples: int
    loss: float
    metrics: list[Metric]


def model_card(
    trained: TrainedModel,
    workdir: Workdir,
    *,
    source: str,
    from_files: str,
    license_name: str,
    raw: bool = False,
) -> str:
    """The text of README.md.

    Args:
      trained: the checkpoint.
      workdir: of its run.
      source: for `ssanet_jax.load`, as 'hf://user/name'.
      from_files: how an image file becomes an input.
      license_name: of the weights, as the Hub names it: 'apache-2.0'.
      raw: whether the variables are not the averages of a run that has them.

    Raises:
      ConfigError: huggingface_hub is missing, or a file of the run is damaged.
    """
    config = trained.config
    results = find_results(trained, workdir, raw=raw)
    title = f'{trained.name} on {without_version(config.dataset.name)}'
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('ssanet_jax.publish'),
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, of the user's own run
    )
    return environment.get_template('model_card.md').render(
        front_matter=_front_matter(trained, results, title, license_name),
        title=title,
        trained=trained,
        config=config,
        shown=trained.preprocessing,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(trained.variables['params'])),
        initial_weights=initial_weights(config),
        averaged=bool(config.ema.horizon) and not raw,
        results=results,
        source=source,
        from_files=from_files,
        names_of=namings(trained.model),
        constructor=torch_constructor(trained),
        classes=_listed(trained.classes),
        versions=_versions(workdir),
        changes={name: repr(value) for name, value in recipe(trained).items()},
        license=license_name,
    )


def find_results(trained: TrainedModel, workdir: Workdir, *, raw: bool = False) -> Results | None:
    """The results of a checkpoint, in evaluation.json or metrics.jsonl; None if it has none."""
    prefix = 'raw/' if raw else ''
    logged = [line for line in workdir.read_metrics() if line['split'] == 'eval']
    for line in [*logged, workdir.read_evaluation()][::-1]:
        if line.get('step') == trained.step and f'{prefix}top5' in line:
            count = int(line['num_examples'])
            metrics = [
                Metric(name, line[prefix + kind], round(line[prefix + kind] * count / 100))
                for name, kind in (('top-1 accuracy', 'top1'), ('top-5 accuracy', 'top5'))
                if kind == 'top1' or len(trained.classes) > 5  # otherwise trivially 100 %
            ]
            split = trained.config.dataset.eval_split if line['split'] == 'eval' else line['split']
            return Results(split, count, line[f'{prefix}loss'], metrics)
    return None


def recipe(trained: TrainedModel) -> dict[str, Any]:
    """The fields of the run that differ from the defaults, without folders."""
    defaults = flatten(base())
    fields = {**flatten(trained.config), 'init.weights': initial_weights(trained.config)}
    return {n: v for n, v in fields.items() if n not in _PATHS and v != defaults[n]}


def torch_constructor(trained: TrainedModel) -> str | None:
    """Code that makes the network in torch, with the names of the published weights.

    Returns:
      'torchvision.models.resnet50(num_classes=10)', 'timm.create_model(...)', or None where the
      library that gives the names has no such network, and for all with attention.
    """
    options, (attention, network) = trained.options, split_name(trained.name)
    if attention or options.keys() - _OF_TRAINING or 'epsilon' in options['norm_options']:
        return None
    library = namings(trained.model)[0]
    name = next(
        (
            source.removeprefix(f'{library}://').partition('.')[0]
            for source, entry in hosted_weights().items()
            if entry.network == network and source.startswith(f'{library}://')
        ),
        None,
    )
    arguments = f'num_classes={len(trained.classes)}'
    if name is None:
        return None
    if library == 'timm':
        return f'timm.create_model({name!r}, {arguments})'
    if name == 'googlenet':
        arguments += ', aux_logits=False, init_weights=False'
    return f'torchvision.models.{name}({arguments})'


def _front_matter(
    trained: TrainedModel, results: Results | None, title: str, license_name: str
) -> str:
    """YAML between the lines ---, with results in the form `model-index`."""
    hub, name = require_hub(), without_version(trained.config.dataset.name)
    known = _DATASETS.get(plain_name(name))
    kind, network = split_name(trained.name)
    evaluated = results and [
        hub.EvalResult(
            task_type='image-classification',
            dataset_type=known or name,
            dataset_name=name,
            dataset_split=results.split,
            metric_type='accuracy',
            metric_name=metric.name,
            metric_value=metric.percent,
        )
        for metric in results.metrics
    ]
    return hub.ModelCardData(
        license=license_name,
        library_name='ssanet-jax',
        pipeline_tag='image-classification',
        tags=['image-classification', 'jax', 'flax', network, *([kind] if kind else [])],
        datasets=[known] if known else None,
        metrics=['accuracy'],
        model_name=title,
        eval_results=evaluated,
    ).to_yaml()


def _listed(classes: Sequence[str]) -> str:
    """The first class names as a list in one line."""
    shown = ', '.join(f'`{printable(name).replace("`", "")}`' for name in classes[:_SHOWN_CLASSES])
    left = len(classes) - _SHOWN_CLASSES
    return f'{shown}, and {left:,} more.' if left > 0 else f'{shown}.'


def _versions(workdir: Workdir) -> str:
    """'ssanet_jax 0.1.0, jax 0.10.2, flax 0.12.8 on 8 x TPU v5 lite', of the last start."""
    last = (workdir.read_starts() or [{}])[-1]
    known = last.get('versions', {})
    versions = [f'{n} {known[n]}' for n in ('ssanet_jax', 'jax', 'flax') if n in known]
    devices = f' on {last["devices"]} x {last["device_kind"]}' if 'device_kind' in last else ''
    return f'{", ".join(versions) or "unknown versions"}{devices}'
