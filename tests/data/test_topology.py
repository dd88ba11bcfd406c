"""Halvings, kernels and feature values equal nnU-Net v2.8.1's own, or a count by hand."""

import pytest

from medtool.core.plan import NetworkPlan
from medtool.data.topology import feature_values, topology


def digits(triples: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("".join(str(n) for n in triple) for triple in triples)


@pytest.mark.parametrize(
    ("spacing", "patch", "halvings", "strides", "kernels"),
    [
        (
            (2.5, 0.8, 0.8),
            (40, 224, 224),
            [3, 5, 5],
            "111 122 222 222 222 122",
            "133 333 333 333 333 333",
        ),
        ((1, 1, 1), (128, 128, 128), [5, 5, 5], "111 222 222 222 222 222", "333 " * 5 + "333"),
        (
            (5, 1.5, 1.5),
            (20, 256, 224),
            [2, 5, 5],
            "111 122 222 222 122 122",
            "133 333 333 333 333 333",
        ),
        (
            (10, 1.5, 1.5),
            (14, 256, 224),
            [1, 5, 5],
            "111 122 122 222 122 122",
            "133 133 333 333 333 333",
        ),
        (
            (3, 1, 1),
            (64, 192, 192),
            [4, 5, 5],
            "111 122 222 222 222 222",
            "133 333 333 333 333 333",
        ),
        ((0.8, 0.8), (512, 512), [7, 7], "11" + " 22" * 7, "33 " * 7 + "33"),
    ],
)
def test_goldens(spacing, patch, halvings, strides, kernels):
    found = topology(spacing, patch)

    assert [2**n for n in halvings] == list(found.divisor_vox)
    assert digits(found.strides) == strides
    assert digits(found.kernel_sizes) == kernels


def test_the_patch_is_padded_so_that_every_halving_is_exact():
    # 36.5 and 50 halve 3 times (to 5 and 7), so both become multiples of 8.
    found = topology((1, 1, 1), (36.5, 50, 36))

    assert found.divisor_vox == (8, 8, 8)
    assert found.patch_size_vox == (40, 56, 40)


def test_one_axis_alone_is_halved_only_while_long():
    # 11 voxels: under 12, so a stage for this axis alone is not worth it; 12 are.
    assert len(topology((1, 1, 1), (4, 4, 11)).strides) == 1
    assert len(topology((1, 1, 1), (4, 4, 12)).strides) == 2


def test_feature_values_by_hand():
    plain = NetworkPlan("plain", (2, 4), ((3, 3), (3, 3)), ((1, 1), (2, 2)), (2, 2), (2,))
    # Encoder 2*2*64 + 2*4*16, decoder (2+1)*2*64, scores 3*64.
    assert feature_values(plain, (8, 8), 3) == 256 + 128 + 384 + 192
    residual = NetworkPlan("residual", (2, 4), ((3, 3), (3, 3)), ((1, 1), (2, 2)), (1, 3), (1,))
    # Stem 2*64; stage 0: 2*2*64; stage 1: (2*3 + 1)*4*16; decoder (1+1)*2*64; scores 3*64.
    assert feature_values(residual, (8, 8), 3) == 128 + 256 + 448 + 256 + 192
