"""Every structure of the gallery: what is found, and removal group by group and as a whole."""

import pytest

from mipprune.graph.gallery import STRUCTURES, examine

# structure -> (families, classes, channels that stay although no output of the network), by hand.
EXPECTED = {
    "mlp": (2, 21, 0),
    "flatten_chain": (3, 30, 0),
    "global_pool_chain": (2, 14, 0),
    "residual_identity": (3, 24, 0),
    "residual_projection": (4, 44, 0),
    "residual_zero_pad": (4, 42, 0),
    "residual_in_place": (1, 8, 0),
    "pre_activation": (3, 28, 0),
    "norm_after_activation": (2, 14, 0),
    "group_norm": (2, 10, 0),
    "instance_norm": (1, 8, 0),
    "prelu": (2, 14, 0),
    "depthwise": (3, 28, 0),
    "depthwise_multiplier": (1, 6, 0),
    "grouped": (2, 22, 0),
    "shuffled": (3, 14, 0),
    "shuffled_module": (1, 4, 0),
    "transposed": (2, 14, 0),
    "transposed_grouped": (2, 14, 0),
    "one_dimensional": (2, 14, 0),
    "three_dimensional": (2, 11, 0),
    "channels_last": (1, 8, 0),
    "pixel_shuffle": (2, 11, 0),
    "dense_block": (4, 18, 0),
    "inception": (4, 18, 0),
    "u_net": (5, 40, 0),
    "chunk_append": (1, 12, 0),
    "halves": (2, 14, 0),
    "unequal_split": (3, 15, 0),
    "squeeze_excite": (2, 12, 0),
    "squeeze_excite_conv": (2, 11, 0),
    "spatial_attention": (1, 6, 8),
    "glu_conv": (2, 11, 0),
    "multi_output": (2, 13, 0),
    "multi_input": (2, 14, 0),
    "layer_norm_hidden": (1, 10, 12),
    "separate": (2, 24, 24),
    "separate_kernel": (2, 24, 24),
    "cross_attention": (2, 16, 0),
    "head_norm": (2, 24, 24),
    "fused_unbind": (2, 24, 24),
    "fused_chunk": (2, 24, 24),
    "fused_slices": (2, 24, 24),
    "interleaved": (2, 24, 24),
    "grouped_query": (2, 22, 24),
    "grouped_query_expand": (2, 22, 24),
    "grouped_query_native": (2, 22, 24),
    "vision_transformer": (4, 48, 60),
    "torch_attention": (3, 20, 0),
    "torch_encoder": (4, 48, 48),
    "tied_embedding": (2, 16, 9),
    "conv_attention": (2, 14, 8),
    "raw_weights": (3, 22, 0),
    "channel_parameters": (1, 8, 0),
    "weight_norm": (1, 8, 6),
    "low_rank_update": (3, 16, 0),
    "maxout": (1, 5, 0),
    "used_twice": (1, 8, 0),
    "no_grad_region": (2, 14, 0),
    "recurrent": (2, 15, 5),
    "written_in_place": (1, 7, 6),
    "picked_channels": (1, 7, 6),
    "fixed_size": (1, 7, 6),
}


def test_the_gallery_is_pinned() -> None:
    assert set(STRUCTURES) == set(EXPECTED)
    assert len(STRUCTURES) >= 40


@pytest.mark.parametrize("name", EXPECTED)
def test_structure(name: str) -> None:
    result = examine(STRUCTURES[name], seed=1)
    families, classes, frozen = EXPECTED[name]
    assert (len(result.groups), result.groups.n_classes) == (families, classes)
    stays = [z for z in result.groups.frozen if z.reason != "an output of the network"]
    assert sum(z.n_channels for z in stays) == frozen
    assert all(z.reason for z in stays)
    assert result.counted, "predicted and counted sizes differ"
    assert result.worst <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_with_other_weights_and_masks(name: str, seed: int) -> None:
    result = examine(STRUCTURES[name], seed=seed, keep=0.25 * seed)
    assert result.counted
    assert result.worst <= 1e-10
