"""``mipprune export``: a pruned network as ONNX or safetensors."""

from argparse import Namespace

from mipprune.cli._command import Command
from mipprune.cli._outputs import check_files
from mipprune.cli._parser import Parser


def _configure(parser: Parser) -> None:
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--onnx", metavar="FILE", help="write ONNX and compare with onnxruntime")
    parser.add_argument("--safetensors", metavar="FILE", help="write the weights as safetensors")


def _execute(options: Namespace) -> int:
    from mipprune.errors import InputError
    from mipprune.pipeline import export_onnx, export_safetensors, load_pruned

    if options.onnx is None and options.safetensors is None:
        raise InputError("nothing to write: give --onnx FILE, --safetensors FILE or both")
    check_files(options, "onnx", "safetensors")
    pruned = load_pruned(options.run)
    if options.onnx is not None:
        difference = export_onnx(pruned.model, pruned.args, pruned.kwargs, options.onnx)
        print(f"{options.onnx}: onnxruntime agrees with torch to {difference:.1e} (relative)")
    if options.safetensors is not None:
        export_safetensors(pruned.model, options.safetensors)
        print(f"{options.safetensors}: {len(pruned.model.state_dict())} tensors")
    return 0


COMMAND = Command(
    name="export",
    summary="Write the pruned network of a run as ONNX (checked against torch) or safetensors.",
    configure=_configure,
    execute=_execute,
    example="mipprune export runs/demo --onnx pruned.onnx",
)
