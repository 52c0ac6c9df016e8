"""The tree over an exchange message's parts, by the vectors of Certificate Transparency."""

from __future__ import annotations

import pytest

from aggregation.crypto.digest_tree import root_from, tree

# The reference inputs and roots of github.com/google/certificate-transparency, merkle_tree_test.
LEAVES = [
    bytes.fromhex(each)
    for each in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize("leaves", range(1, 9))
def test_roots_are_those_of_the_reference(leaves: int) -> None:
    assert tree(LEAVES[:leaves])[0].hex() == ROOTS[leaves - 1]


@pytest.mark.parametrize("leaves", [1, 2, 3, 5, 8, 13, 33, 64])
def test_a_proof_holds_for_its_leaf_at_its_place_and_no_other(leaves: int) -> None:
    made = [number.to_bytes(2, "big") for number in range(leaves)]
    root, proofs = tree(made)
    assert max(map(len, proofs)) == (leaves - 1).bit_length()
    for index, proof in enumerate(proofs):
        for place in range(leaves):
            is_right = root_from(made[index], place, leaves, proof) == root
            assert is_right == (place == index)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda proof: proof[:-1],
        lambda proof: (*proof, bytes(32)),
        lambda proof: (bytes(32), *proof[1:]),
        lambda proof: proof[::-1],
        lambda _: (),
    ],
    ids=["shorter", "longer", "another", "turned", "none"],
)
def test_a_spoiled_proof_gives_another_root_or_none(spoil) -> None:
    made = [bytes([number]) for number in range(7)]
    root, proofs = tree(made)
    assert root_from(made[3], 3, 7, spoil(proofs[3])) != root


def test_an_inner_node_is_no_leaf() -> None:
    """Else two leaves' digests, as one leaf, would stand for both."""
    (_, proofs), (root, _) = tree(LEAVES[:4]), tree(LEAVES[:4])
    left = tree(LEAVES[:2])[0]
    assert root_from(left, 0, 2, proofs[0][1:]) != root
    forged = b"".join((tree([LEAVES[0]])[0], tree([LEAVES[1]])[0]))
    assert root_from(forged, 0, 2, proofs[0][1:]) != root
