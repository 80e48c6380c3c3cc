"""SPR on Fashion-MNIST: ResNet-20 with a stride-2 stem at 50 % of the MACs.

The dense reference gets as many epochs (4) as SPR and fine-tuning together (3 + 1).
The recipe has 8 and 5 + 3; with fewer steps the penalty has to be stronger.

python benchmarks/prune_fashion_mnist.py
"""

from pruning import parse_arguments, study

CONFIG = {
    "data": "fashion-mnist",
    "model": "resnet20",
    "model_options": {"stem_stride": 2},
    "method": "spr",
    "macs": "50%",
    "method_options": {"strength": 5.0},
    "dense_epochs": 4,
    "epochs": 3,
    "tune_epochs": 1,
}

if __name__ == "__main__":
    study(CONFIG, parse_arguments(__doc__, (0,), "prune_fashion_mnist"))
