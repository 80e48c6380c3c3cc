"""SPR on the digits: ResNet-20 at 40 % of the MACs, three seeds.

python benchmarks/prune_digits.py
"""

from pruning import parse_arguments, study

CONFIG = {"data": "digits", "model": "resnet20", "method": "spr", "macs": "40%"}

if __name__ == "__main__":
    study(CONFIG, parse_arguments(__doc__, (0, 1, 2), "prune_digits"))
