"""What a result file records: versions, machine and command."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata

__all__ = ["package_versions", "provenance"]

DEFAULT_PACKAGES = ("mipprune", "torch", "numpy", "scipy", "pyomo", "highspy", "cvxpy", "numba")


def package_versions(names: Iterable[str] = DEFAULT_PACKAGES) -> dict[str, str]:
    """Installed versions by distribution name; absent ones are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def provenance(seed: int | None = None) -> dict[str, object]:
    """Seed, versions, machine, command and time (UTC), as plain JSON types."""
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    if program == "__main__.py":
        program = "python -m mipprune"
    return {
        "seed": seed,
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "command": " ".join([program, *map(shlex.quote, sys.argv[1:])]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
