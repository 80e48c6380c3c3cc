"""The 1797 digits of 8x8 pixels that scikit-learn bundles."""

import hashlib

import torch

from mipprune.errors import MissingExtraError
from mipprune.models._dataset import Augmentation, Dataset, make_dataset, stratified_holdout

__all__ = ["load_digits_set"]

_N_TEST = 400
_TEST_SEED = 0


def load_digits_set(*, validation: int, split_seed: int) -> Dataset:
    """The bundled digits, float32 in 0..1, split 1397 / 400 with ``validation`` held out.

    The 400 test images (stratified) never change; one of them is 0.25 points.
    ``split_seed`` chooses the validation images among the other 1397.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data", "for the data set 'digits'") from error
    bunch = load_digits()
    # Pixels are whole numbers 0..16.
    images = torch.from_numpy(bunch.images / 16.0).to(torch.float32).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    rest, held_out = (
        torch.from_numpy(part) for part in stratified_holdout(labels, _N_TEST, _TEST_SEED)
    )
    return make_dataset(
        "digits",
        (images[rest], labels[rest]),
        (images[held_out], labels[held_out]),
        n_classes=10,
        image_shape=(1, 8, 8),
        mean=(0.305,),
        std=(0.376,),
        validation=validation,
        # Shifts by a pixel lower the test accuracy of a ResNet-20 from .9925 to .982 (20 epochs).
        augmentation=Augmentation(),
        class_names=tuple("0123456789"),
        files={"digits (float32 pixels)": hashlib.sha256(images.numpy().tobytes()).hexdigest()},
        split_seed=split_seed,
    )
