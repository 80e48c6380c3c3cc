"""Reading what ``torch.save`` wrote, tensors and plain types only."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

from mipprune.errors import DataFileError

__all__ = ["read_torch_file"]


def read_torch_file(path: Path, *, device: str = "cpu") -> Any:
    """The content of a file of ``torch.save``; nothing in it is executed.

    torch's own message recommends to load such a file without that protection; it is
    not passed on.

    Raises
    ------
    DataFileError
        Missing, damaged, not of ``torch.save``, or with more than tensors and plain types.
    """
    import torch

    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no file"
        raise DataFileError(f"there is {what} at {path}; expected weights of torch.save")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except _FAILURES as error:
        if not zipfile.is_zipfile(path):
            raise DataFileError(
                f"{path} is no file of torch.save, or only part of one; {_REMEDY}"
            ) from error
        if isinstance(error, pickle.UnpicklingError):
            raise DataFileError(
                f"{path} holds more than tensors, a whole network perhaps; Python objects are not "
                f"loaded because that can run any code; {_REMEDY}"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise DataFileError(f"{path} is damaged ({reason}); {_REMEDY}") from error


_FAILURES = (
    OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    pickle.UnpicklingError,
)  # fmt: skip
_REMEDY = "where the network is, save it again with torch.save(model.state_dict(), path)"
