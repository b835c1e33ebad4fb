"""Commands, one per file, run as `ssanet NAME` or `python -m ssanet_jax.tools.NAME`."""

import sys
from pathlib import Path
from types import TracebackType

# The extra of pyproject.toml that installs each optional module.
EXTRAS = {
    'absl': 'train',
    'array_record': 'train',
    'cv2': 'train',
    'etils': 'train',
    'filelock': 'train',
    'flatbuffers': 'export',
    'gradio': 'demo',
    'huggingface_hub': 'hub',
    'importlib_resources': 'train',
    'jinja2': 'train',
    'libtpu': 'preflight-tpu',
    'matplotlib': 'train',
    'ml_collections': 'train',
    'onnx': 'export',
    'onnxruntime': 'export',
    'optax': 'train',
    'orbax': 'train',
    'PIL': 'train',
    'platformdirs': 'train',
    'rich': 'train',
    'safetensors': 'weights',
    'scipy': 'train',
    'simplejpeg': 'train',
    'sklearn': 'train',
    'statsmodels': 'study',
    'tensorboard': 'train',
    'tensorflow': 'tensorflow',
    'tensorflow_datasets': 'train',
    'torch': 'torch',
}


def name_extra(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """An excepthook that exits with 2 and one line if the module of an extra is missing."""
    module = (getattr(error, 'name', None) or '').partition('.')[0]
    if not isinstance(error, ModuleNotFoundError) or module not in EXTRAS:
        return sys.__excepthook__(kind, error, trace)
    print(
        f'{Path(sys.argv[0]).name}: {module} is not installed; run: '
        f"pip install 'ssanet-jax[{EXTRAS[module]}]'",
        file=sys.stderr,
    )
    raise SystemExit(2)


if Path(sys.argv[0]).stem in ('-m', 'main', 'ssanet'):  # a command, whose module is imported next
    sys.excepthook = name_extra
