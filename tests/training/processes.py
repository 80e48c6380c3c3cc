"""Two fresh gloo processes for tests of distributed training."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
# A start of torch takes seconds, many on a busy machine; a hang takes forever.
PATIENCE = 300


@contextmanager
def process_group(rank: int, out: str) -> Iterator[None]:
    """Membership in the group of two that meets through a file in ``out``."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def run_workers(module: str, out: Path) -> None:
    """Call ``worker(rank, out)`` of a test module in two processes and wait for both.

    They are started afresh: a fork of a process whose libraries have threads can hang.
    """
    code = "import importlib, sys; importlib.import_module(sys.argv[1]).worker(*sys.argv[2:])"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, module, str(rank), str(out)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
