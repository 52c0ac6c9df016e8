import math

import numpy as np
import pytest

from aggregation import ParameterError
from aggregation.crypto.graph import ALL_PAIRS_UP_TO, MaskGraph, degree, log2_failure

TRANSCRIPT = bytes(range(32))


@pytest.mark.parametrize("sites", [*range(3, 40), 64, 128, 500, 1000])
def test_graphs_are_symmetric_regular_and_every_pair_has_one_initiator(sites):
    graph = MaskGraph.of(sites, TRANSCRIPT)
    pairs = set()
    for i in range(sites):
        near = graph.neighbours(i)
        assert len(near) == graph.degree == degree(sites)
        assert i not in near
        assert all(i in graph.neighbours(j) for j in near[:3])
        for j in graph.initiates(i):
            assert j in near
            assert (j, i) not in pairs
            pairs.add((i, j))
    assert len(pairs) == sites * graph.degree // 2
    most = max(len(graph.initiates(i)) for i in range(sites))
    assert most <= graph.degree // 2 + 1


def test_all_pairs_up_to_the_threshold_and_sparser_above():
    assert degree(ALL_PAIRS_UP_TO) == ALL_PAIRS_UP_TO - 1
    for sites in (64, 128, 256, 1000):
        assert degree(sites) < sites - 1
        assert log2_failure(sites, degree(sites), sites // 2) <= -80
        assert log2_failure(sites, degree(sites) - 2, sites // 2) > -80
    assert degree(1000) <= 100


def test_another_transcript_gives_another_ring():
    assert MaskGraph.of(64, TRANSCRIPT).ring != MaskGraph.of(64, bytes(32)).ring
    assert MaskGraph.of(64, TRANSCRIPT) == MaskGraph.of(64, TRANSCRIPT)


def connected(honest, sites, k):
    """Whether honest places of a ring stay connected when each reaches k / 2 either way."""
    places = np.flatnonzero(honest)
    if len(places) < 2:
        return True
    gaps = np.diff(np.append(places, places[0] + sites))
    return int(np.sum(gaps > k // 2)) < 2


@pytest.mark.parametrize(("sites", "k", "colluding"), [(40, 8, 16), (60, 10, 24), (30, 6, 12)])
def test_the_bound_holds_against_simulation_and_not_far_below(sites, k, colluding):
    rng = np.random.default_rng(7)
    honest = np.ones(sites, dtype=bool)
    honest[:colluding] = False
    runs = 20_000
    pieces = sum(not connected(rng.permutation(honest), sites, k) for _ in range(runs))
    measured = math.log2(max(pieces, 1) / runs)
    bound = log2_failure(sites, k, colluding)
    assert measured <= bound + 1e-9
    # the reject arm: a bound for two sites more on either side would be broken
    assert measured > log2_failure(sites, k + 4, colluding)


def test_a_real_graph_falls_into_pieces_exactly_when_the_runs_say_so():
    rng = np.random.default_rng(3)
    graph = MaskGraph(tuple(rng.permutation(40).tolist()), 4)
    for _ in range(200):
        honest = set(rng.choice(40, 14, replace=False).tolist())
        seen, todo = set(), [min(honest)]
        while todo:
            site = todo.pop()
            if site not in seen:
                seen.add(site)
                todo += [j for j in graph.neighbours(site) if j in honest]
        on_ring = np.array([site in honest for site in graph.ring])
        assert (seen == honest) == connected(on_ring, 40, 4)


def test_impossible_requests():
    assert log2_failure(100, 50, 49) == -math.inf
    assert log2_failure(10, 9, 8) == -math.inf
    for arguments in ((10, 3, 5), (10, 0, 5), (10, 4, 11), (10, 10, 2)):
        with pytest.raises(ParameterError):
            log2_failure(*arguments)
