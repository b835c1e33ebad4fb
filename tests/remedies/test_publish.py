"""Remedies of publishing, of the Hub, and of tools that take --model."""

import numpy as np
from PIL import Image

from ssanet_jax.export.program import METADATA_FILE
from ssanet_jax.pretrained import hub
from ssanet_jax.tools import export, publish
from tests.helpers import run_tool
from tests.pretrained.conftest import write_folder
from tests.remedies.helpers import refused


def test_a_published_folder_is_exported_with_images(tmp_path):
    folder, image = write_folder(tmp_path / 'net'), tmp_path / 'image.png'
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    flags = [f'--model={folder}', '--format=safetensors', f'--out={tmp_path / "out"}']
    refused('name images to compare logits on', run_tool, export, *flags)
    run_tool(export, *flags, str(image))
    assert (tmp_path / 'out' / METADATA_FILE).exists()


def test_a_repository_is_named_as_the_messages_say(tmp_path):
    refused('--upload needs --repo=USER/NAME', run_tool, publish, f'--out={tmp_path}', '--upload')
    refused('write USER/NAME', hub.check_name, 'digits')
    hub.check_name('USER/NAME')
