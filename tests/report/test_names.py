"""Images are named by their files where they are files."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ssanet_jax.config import base
from ssanet_jax.report import page
from ssanet_jax.report.evaluation import evaluate_trained
from ssanet_jax.report.sections import hard_examples
from ssanet_jax.trained.load import TrainedModel
from tests.report.runs import Brightness, random_images


def test_hard_and_undecodable_images_of_a_folder_have_the_names_of_their_files(tmp_path):
    images = random_images(12)
    for number, image in enumerate(images):
        split = 'train' if number < 2 else 'validation'
        path = tmp_path / split / 'ab'[number % 2] / f'photo {number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / 'validation/b/cut.png').write_bytes(path.read_bytes()[:-40])
    (tmp_path / 'train/a/notes.txt').write_text('no image')
    config = base()
    config.dataset.update(
        {
            'name': 'folder',
            'data_dir': str(tmp_path),
            'image_size': 8,
            'eval_crop': 'whole',
            'bad_eval_images': 'incorrect',
        }
    )
    model = Brightness(2)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    found = evaluate_trained(
        TrainedModel(config, model, variables, 7, ('a', 'b')), hardest=4, sample=2
    )
    examples = hard_examples(found, 'ab')
    assert len(examples) == 4
    for example, shown in zip(examples, found.hardest.image, strict=True):
        np.testing.assert_array_equal(Image.open(tmp_path / example.name), shown)
        assert example.name.startswith(f'validation/{example.label}/photo ')
    assert page._bad_names(found) == 'validation/b/cut.png'
    (left_out,) = page._left_out(config)
    assert re.fullmatch(r'Left out: .*, 1 \(train/a/notes\.txt\)\.', left_out)


def test_other_images_have_their_position(fabricated):
    label = np.full(40, -1)
    label[7] = 1
    _, trained = fabricated(random_images(40), label, 'ab')
    found = evaluate_trained(trained, hardest=4, sample=2)
    assert [example.name for example in hard_examples(found, 'ab')] == ['#7']
    assert page._bad_names(found).startswith('#0, #1, ')
    assert page._bad_names(found).endswith('#24, and 15 more')
