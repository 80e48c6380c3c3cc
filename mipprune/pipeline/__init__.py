"""From a network and a budget to a smaller network and a report."""

from mipprune.pipeline._agreement import Agreement, measure_agreement
from mipprune.pipeline._compare import CompareResult, compare
from mipprune.pipeline._compare_config import CompareConfig, MethodEntry, load_compare_config
from mipprune.pipeline._compress import compress
from mipprune.pipeline._compress_run import CompressionRun, run_compression
from mipprune.pipeline._compressed import Compressed, CompressOptions, FamilyResult
from mipprune.pipeline._config import PruneConfig, load_config
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._export import export_onnx, export_safetensors
from mipprune.pipeline._latency import measure_latency
from mipprune.pipeline._latency_model import LatencyTable, measure_layer_latency
from mipprune.pipeline._prune import PruneResult, make_task, prune
from mipprune.pipeline._saved import PrunedNetwork, load_pruned

__all__ = [
    "Agreement",
    "CompareConfig",
    "CompareResult",
    "CompressOptions",
    "Compressed",
    "CompressionRun",
    "FamilyResult",
    "LatencyTable",
    "MethodEntry",
    "PruneConfig",
    "PruneResult",
    "PrunedNetwork",
    "RunDirectory",
    "compare",
    "compress",
    "export_onnx",
    "export_safetensors",
    "load_compare_config",
    "load_config",
    "load_pruned",
    "make_task",
    "measure_agreement",
    "measure_latency",
    "measure_layer_latency",
    "prune",
    "run_compression",
]
