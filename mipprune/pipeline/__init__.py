"""From a network and a budget to a smaller network and a report."""

from mipprune.pipeline._agreement import Agreement, measure_agreement
from mipprune.pipeline._compress import compress
from mipprune.pipeline._compressed import Compressed, CompressOptions, FamilyResult
from mipprune.pipeline._config import PruneConfig, load_config
from mipprune.pipeline._directory import RunDirectory
from mipprune.pipeline._export import export_onnx, export_safetensors
from mipprune.pipeline._latency import measure_latency
from mipprune.pipeline._latency_model import LatencyTable, measure_layer_latency
from mipprune.pipeline._prune import PruneResult, prune
from mipprune.pipeline._saved import PrunedNetwork, load_pruned

__all__ = [
    "Agreement",
    "CompressOptions",
    "Compressed",
    "FamilyResult",
    "LatencyTable",
    "PruneConfig",
    "PruneResult",
    "PrunedNetwork",
    "RunDirectory",
    "compress",
    "export_onnx",
    "export_safetensors",
    "load_config",
    "load_pruned",
    "measure_agreement",
    "measure_latency",
    "measure_layer_latency",
    "prune",
]
