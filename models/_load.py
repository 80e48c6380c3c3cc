"""Data sets by name."""

from pathlib import Path
from typing import Any

from mipprune._support.checks import require_integer, require_path, require_text, suggestion
from mipprune.errors import InputError
from mipprune.models._batches import DataSource, check_data
from mipprune.models._cifar import CIFAR_SETS, load_cifar
from mipprune.models._dataset import Dataset
from mipprune.models._digits import load_digits_set
from mipprune.models._factory import load_factory
from mipprune.models._folder import load_folder
from mipprune.models._idx import IDX_SETS, load_idx_set

__all__ = ["data_names", "load_data"]

_DIGITS_VALIDATION = 200
_VALIDATION = 5000


def data_names() -> tuple[str, ...]:
    """Names that :func:`load_data` knows."""
    return ("digits", *IDX_SETS, *CIFAR_SETS, "folder")


def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    validation: int | None = None,
    split_seed: int = 0,
    verify: bool = True,
    image_size: int | tuple[int, int] = 224,
    **options: Any,
) -> Dataset | DataSource:
    """Load a data set by name, or call a factory of yours.

    =================  ==========================================  ============
    name               files                                       validation
    =================  ==========================================  ============
    ``digits``         none; scikit-learn bundles them             200
    ``fashion-mnist``  four idx files, plain or .gz                5000
    ``mnist``          four idx files, plain or .gz                5000
    ``cifar10``        binary version, ``*.bin``                   5000
    ``cifar100``       binary version, ``*.bin``                   5000
    ``folder``         ``train/<class>/``, ``test/`` or ``val/``   5 %
    ``module:name``    whatever your factory reads                 its own
    =================  ==========================================  ============

    Parameters
    ----------
    name : str
        As above.
    root : path, optional
        Folder of the files (sub-folders of the usual names are searched).
        Default: the environment variable ``MIPPRUNE_DATA``, then the place
        where the system's package puts them.
    validation : int, optional
        Training images held out as validation split, stratified.
    split_seed : int
        Seed of that choice; the test set never depends on it.
    verify : bool
        Compare with the published checksums (idx sets) and record counts
        (CIFAR). False accepts other data of the same format.
    image_size : int or (int, int)
        Of ``folder`` only: height and width after resizing and cropping.
    **options
        For a factory of yours only: passed on to it (with ``root``, if given).

    Raises
    ------
    InputError
        Unknown name, wrong options, labels out of range, or a factory whose
        result is no data.
    DataFileError
        Files missing or damaged; the message has the command that gets them.
    MissingExtraError
        A package that reads this data is not installed.

    Examples
    --------
    >>> from mipprune.models import load_data
    >>> data = load_data("digits")
    >>> len(data.train), len(data.validation), len(data.test)
    (1197, 200, 400)
    """
    require_text("name", name, "the name of a data set, or 'package.module:factory'")
    if root is not None:
        require_path("root", root, "folder")
    split_seed = require_integer("split_seed", split_seed, at_least=0)
    if validation is not None:
        validation = require_integer("validation", validation, at_least=1)
    if ":" in name:
        if root is not None:
            options["root"] = root
        return check_data(load_factory(name)(**options), f"'{name}'")
    if options:
        raise InputError(f"data set '{name}' has no option {', '.join(sorted(options))}")
    if name == "digits":
        held_out = _DIGITS_VALIDATION if validation is None else validation
        return load_digits_set(validation=held_out, split_seed=split_seed)
    if name == "folder":
        return load_folder(
            root, image_size=image_size, validation=validation, split_seed=split_seed
        )
    held_out = _VALIDATION if validation is None else validation
    if name in IDX_SETS:
        return load_idx_set(name, root, validation=held_out, split_seed=split_seed, verify=verify)
    if name in CIFAR_SETS:
        return load_cifar(name, root, validation=held_out, split_seed=split_seed, verify=verify)
    raise InputError(
        f"unknown data set '{name}'{suggestion(name, data_names())}; known are "
        f"{', '.join(data_names())}, or your own as 'package.module:factory'"
    )
