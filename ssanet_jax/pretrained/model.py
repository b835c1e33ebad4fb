"""A network with trained weights, however it was found."""

from typing import TYPE_CHECKING, Any, NamedTuple

from ssanet_jax.models import Network
from ssanet_jax.pretrained.preprocessing import Normalize, Preprocessing

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class PretrainedModel(NamedTuple):
    """A network with trained weights, and what is needed to use it.

    Attributes:
      name: of the network: `create_model(name, num_classes=len(classes), **options)` makes `model`.
      options: see `name`.
      model: the network.
      variables: its 'params' and 'batch_stats', float32 NumPy arrays.
      classes: class names by label.
      preprocessing: of image files.
    """

    name: str
    options: dict[str, Any]
    model: Network
    variables: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def preprocess(self) -> Normalize:
        """Maps uint8 images [N, size, size, 3] to the model's input."""
        return self.preprocessing.normalize

    @property
    def dataset(self) -> 'ConfigDict':
        """Options with which `data.file_batches` makes such images; needs the extra `train`."""
        return self.preprocessing.dataset
