"""SPR on Fashion-MNIST: ResNet-20 with a stride-2 stem at 50 % of the MACs.

The dense reference gets as many epochs (8) as SPR and fine-tuning together (5 + 3).

python benchmarks/prune_fashion_mnist.py
"""

from pruning import parse_arguments, study

CONFIG = {
    "data": "fashion-mnist",
    "model": "resnet20",
    "model_options": {"stem_stride": 2},
    "method": "spr",
    "macs": "50%",
    "dense_epochs": 8,
    "epochs": 5,
    "tune_epochs": 3,
}

if __name__ == "__main__":
    study(CONFIG, parse_arguments(__doc__, (0,), "prune_fashion_mnist"))
