"""SPR on the digits: ResNet-20 at 40 % of the MACs, three seeds.

python benchmarks/prune_digits.py
"""

import argparse

from pruning import add_arguments, study

CONFIG = {"data": "digits", "model": "resnet20", "method": "spr", "macs": "40%"}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, (0, 1, 2), "prune_digits")
    study(CONFIG, parser.parse_args())
