"""Print the table of structures: what is found, whether removal is exact, what stays and why."""

import warnings

import torch

from mipprune.graph.gallery._registry import STRUCTURES, examine


def main() -> int:
    """Examine every structure; 1 if a removal was not exact."""
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__.split(chr(43))[0]}\n")
    print(
        "| family | structure | groups | classes | removals | worst difference "
        "| frozen, with the reason |"
    )
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for structure in STRUCTURES.values():
        result = examine(structure)
        good = result.worst <= 1e-10 and result.counted
        failed += not good
        reasons: dict[str, int] = {}
        for z in result.groups.frozen:
            reasons[z.reason] = reasons.get(z.reason, 0) + z.n_channels
        frozen = "; ".join(
            f"{n}: {reason}"
            for reason, n in reasons.items()
            if reason != "an output of the network"
        )
        print(
            f"| {structure.family} | {structure.name} | {len(result.groups)} | "
            f"{result.groups.n_classes} | {result.removals} | "
            f"{'exact' if good else 'DIFFERS'} ({result.worst:.0e}) | {frozen} |"
        )
    print(f"\n{len(STRUCTURES)} structures, {failed} not exact.")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
