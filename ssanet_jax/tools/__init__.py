"""Commands, one per file, run as `ssanet NAME` or `python -m ssanet_jax.tools.NAME`."""

import sys
from pathlib import Path
from types import TracebackType

# The extras of pyproject.toml that install optional modules; `train` installs all others.
EXTRAS = {
    'flatbuffers': 'export',
    'gradio': 'demo',
    'huggingface_hub': 'hub',
    'libtpu': 'preflight-tpu',
    'onnx': 'export',
    'onnxruntime': 'export',
    'safetensors': 'weights',
    'statsmodels': 'study',
    'tensorflow': 'tensorflow',
    'torch': 'torch',
}


def name_extra(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The excepthook of commands: exits with 2 and one line if an optional module is missing."""
    module = (getattr(error, 'name', None) or '').partition('.')[0]
    required = {'', 'ssanet_jax', *sys.stdlib_module_names}
    if not isinstance(error, ModuleNotFoundError) or module in required:
        return sys.__excepthook__(kind, error, trace)
    print(
        f'{Path(sys.argv[0]).name}: {module} is not installed; run: '
        f"pip install 'ssanet-jax[{EXTRAS.get(module, 'train')}]'",
        file=sys.stderr,
    )
    raise SystemExit(2)


if any(argument.startswith(f'{__name__}.') for argument in sys.orig_argv):  # python -m
    sys.excepthook = name_extra
