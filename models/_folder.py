"""Image folders: one sub-folder per class, decoded when a batch asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mipprune.errors import DataFileError, MissingExtraError
from mipprune.models._checks import image_pair
from mipprune.models._dataset import Augmentation, Dataset, make_dataset

__all__ = ["FolderSource", "load_folder"]

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# A 224-pixel crop is cut from an image whose shorter side has 256 pixels.
_MARGIN = 256 / 224


@dataclass(frozen=True, eq=False)
class FolderSource:
    """RGB images of files, resized (shorter side 8/7 of the crop) and cropped in the middle.

    Attributes
    ----------
    paths : tuple of Path
    size : (int, int)
        Height and width of the crop.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, positions: Tensor) -> Tensor:
        """Decode: uint8 (k, 3, h, w) for int64 (k,).

        Raises
        ------
        DataFileError
            Naming the file that is no image.
        MissingExtraError
            If Pillow is not installed.
        """
        images = [self._decode(self.paths[position]) for position in positions.tolist()]
        return torch.stack(images) if images else torch.empty(0, 3, *self.size, dtype=torch.uint8)

    def _decode(self, path: Path) -> Tensor:
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError as error:
            raise MissingExtraError("Pillow", "data", "to read image folders") from error
        height, width = self.size
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataFileError(f"'{path}' is not a readable image: {error}") from error
        scale = max(height * _MARGIN / image.height, width * _MARGIN / image.width)
        resized = image.resize(
            (max(width, round(image.width * scale)), max(height, round(image.height * scale))),
            Image.Resampling.BILINEAR,
        )
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        crop = resized.crop((left, top, left + width, top + height))
        return torch.from_numpy(np.array(crop, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def load_folder(
    root: str | Path | None,
    *,
    image_size: int | tuple[int, int],
    validation: int | None,
    split_seed: int,
) -> Dataset:
    """Read ``root/train/<class>/*``, ``root/test`` (or ``root/val``) and so on.

    With ``train``, ``val`` and ``test`` each is what it says. With two of them
    the second one is the test set, and the validation images are held out
    from ``train``.
    """
    if root is None:
        raise DataFileError(
            "an image folder needs root=, a folder with train/<class>/ and test/<class>/ or "
            "val/<class>/ inside"
        )
    root = Path(root)
    size = image_pair(image_size)
    train_folder = root / "train"
    parts = [root / name for name in ("val", "test") if (root / name).is_dir()]
    if not train_folder.is_dir() or not parts:
        raise DataFileError(
            f"'{root}' is no image folder: expected the sub-folders 'train' and 'test' or 'val', "
            "each with one sub-folder per class"
        )
    classes = _class_names(train_folder)
    train = _scan(train_folder, classes, size)
    own_validation = _scan(parts[0], classes, size) if len(parts) == 2 else None
    held_out = validation if validation is not None else max(1, len(train[1]) // 20)
    return make_dataset(
        root.resolve().name,
        train,
        _scan(parts[-1], classes, size),
        n_classes=len(classes),
        image_shape=(3, *size),
        mean=_MEAN,
        std=_STD,
        validation=own_validation if own_validation is not None else held_out,
        augmentation=Augmentation(padding=min(size) // 8, flip=True),
        class_names=classes,
        split_seed=split_seed,
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    if not names:
        raise DataFileError(f"'{folder}' has no sub-folder; expected one per class")
    return names


def _scan(
    folder: Path, classes: Sequence[str], size: tuple[int, int]
) -> tuple[FolderSource, Tensor]:
    extra = sorted(set(_class_names(folder)) - set(classes))
    if extra:
        raise DataFileError(
            f"'{folder}' has the class {', '.join(extra[:3])} that 'train' does not have"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            path for path in (folder / name).glob("*") if path.suffix.lower() in _SUFFIXES
        )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataFileError(f"'{folder}' holds no image ({', '.join(_SUFFIXES)})")
    return FolderSource(tuple(paths), size), torch.tensor(labels, dtype=torch.int64)
