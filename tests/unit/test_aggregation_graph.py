import math

import numpy as np
import pytest
from exchanges import signed_anew, whole

from aggregation import CohortError, ParameterError, PlanError, ReleaseError
from aggregation.crypto import graph
from aggregation.crypto.graph import ALL_PAIRS_UP_TO, choices, choose, initiates, log2_failure
from aggregation.protocol import read_exchange
from aggregation.testing import Federation

TRANSCRIPT = bytes(range(32))


@pytest.mark.parametrize("sites", [*range(3, 40), 64, 127, 128])
def test_of_all_pairs_every_pair_has_one_initiator(sites):
    pairs = set()
    for i in range(sites):
        for j in initiates(sites, i, TRANSCRIPT):
            assert j != i
            assert (j, i) not in pairs
            pairs.add((i, j))
    assert len(pairs) == sites * (sites - 1) // 2
    assert max(len(initiates(sites, i, TRANSCRIPT)) for i in range(sites)) <= sites // 2


def test_choices_are_the_fewest_that_meet_the_bound():
    for sites in (ALL_PAIRS_UP_TO + 1, 200, 500, 1000):
        assert log2_failure(sites, choices(sites), sites // 2) <= -50
        assert log2_failure(sites, choices(sites) - 1, sites // 2) > -50
    assert choices(1000) == 34
    assert graph.mean_neighbours(1000) == 67
    assert graph.mean_neighbours(128) == 127


def test_choices_are_others_in_order_and_drawn_evenly():
    drawn = [choose(200, 7) for _ in range(300)]
    for chosen in drawn:
        assert len(set(chosen)) == choices(200)
        assert list(chosen) == sorted(chosen)
        assert 7 not in chosen
        assert 0 <= chosen[0] <= chosen[-1] < 200
    counts = np.bincount(np.concatenate(drawn), minlength=200)
    expected = 300 * choices(200) / 199
    spread = math.sqrt(expected * (1 - choices(200) / 199))
    others = np.delete(counts, 7)
    assert abs(others - expected).max() < 6 * spread


def pieces(rng, sites, number, honest):
    """Whether honest sites that each name so many others stay connected."""
    reach = np.zeros((sites, sites), dtype=bool)
    for i in range(honest):
        others = np.delete(np.arange(sites), i)
        reach[i, rng.choice(others, number, replace=False)] = True
    reach = (reach | reach.T)[:honest, :honest]
    seen, todo = set(), [0]
    while todo:
        site = todo.pop()
        if site not in seen:
            seen.add(site)
            todo += np.flatnonzero(reach[site]).tolist()
    return len(seen) < honest


@pytest.mark.parametrize(("sites", "number", "colluding"), [(24, 2, 12), (30, 3, 18)])
def test_the_bound_holds_against_simulation_and_not_far_below(sites, number, colluding):
    rng = np.random.default_rng(7)
    runs = 3000
    fell = sum(pieces(rng, sites, number, sites - colluding) for _ in range(runs))
    measured = math.log2(max(fell, 1) / runs)
    assert measured <= log2_failure(sites, number, colluding) + 1e-9
    # the reject arm: a bound for twice as many choices would be broken
    assert measured > log2_failure(sites, 2 * number, colluding)


def test_impossible_requests():
    assert log2_failure(100, 50, 49) < -200
    assert log2_failure(10, 9, 8) == -math.inf
    assert log2_failure(10, 3, 9) == -math.inf, "one alone cannot be cut off"
    for arguments in ((10, 0, 5), (10, 10, 5), (10, 4, 11)):
        with pytest.raises(ParameterError):
            log2_failure(*arguments)


@pytest.fixture
def large(monkeypatch):
    """A cohort that counts as a large one: above four sites each chooses two."""
    monkeypatch.setattr(graph, "ALL_PAIRS_UP_TO", 4)
    monkeypatch.setattr(graph, "choices", lambda _: 2)


@pytest.mark.parametrize("agreement", ["x25519", "x25519-mlkem768"])
@pytest.mark.parametrize("suite", ["ckks-pk", "ckks-collective"])
def test_a_round_over_chosen_neighbours_gives_the_exact_sum(large, suite, agreement):
    custodians = 2 if suite == "ckks-collective" else 0
    fed = Federation(9, suite=suite, key_agreement=agreement, custodians=custodians)
    attempt = fed.start(exchange=False)
    attempt.exchanges = tuple(s.exchange(attempt.cohort) for s in attempt.sites.values())
    release = fed.release(attempt)
    expected = np.sum([i.astype(np.int64) for i in attempt.integers.values()], axis=0)
    for site in attempt.sites.values():
        np.testing.assert_array_equal(site.verify(release), expected)
    degrees = [len(site._secrets._chosen) for site in attempt.sites.values()]
    assert degrees == [2] * 9


def test_a_message_that_is_kept_from_its_reader_opens_nothing(large, monkeypatch):
    """The server drops what one site says to another: a mask is on one side only."""
    following = lambda sites, own: tuple(sorted([(own + 1) % sites, (own + 2) % sites]))  # noqa: E731
    monkeypatch.setattr(graph, "choose", following)
    fed = Federation(9, suite="ckks-collective")
    attempt = fed.start(exchange=False)
    attempt.exchanges = tuple(s.exchange(attempt.cohort) for s in attempt.sites.values())
    handed = fed.handed(attempt)
    of_first = whole(attempt.exchanges[0]).index
    kept_from = {"site-1": [m for m in handed["site-1"] if of_first not in m]}
    assert len(kept_from["site-1"]) == len(handed["site-1"]) - 1
    attempt.aggregator = fed.new_aggregator(attempt)
    for name, site in attempt.sites.items():
        attempt.integers[name] = fed.random_integers()
        given = (handed | kept_from)[name]
        upload = site.upload(attempt.cohort, attempt.integers[name], given)
        attempt.aggregator.add(upload.manifest, upload.chunks)
    listed = fed.decryptor.confirm(
        attempt.cohort, attempt.aggregator.opening_list(), attempt.aggregator.sealed_secrets()
    )
    for site in attempt.sites.values():
        attempt.aggregator.add_opening(site.open(listed))
    total = attempt.aggregator.total()
    with pytest.raises(ReleaseError):
        fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)


@pytest.mark.parametrize(
    "chosen",
    [b"", b"\0\1", b"\0\1\0\1", b"\0\2\0\1", b"\0\0\0\1", b"\0\1\0\x09", b"\0\1\0\2\0\3"],
    ids=["none", "one", "twice", "order", "itself", "nobody", "three"],
)
def test_choices_that_are_none_are_refused_and_their_sender_named(large, chosen):
    fed = Federation(9)
    attempt = fed.start(exchange=False)
    said = attempt.sites["site-0"].exchange(attempt.cohort)
    message = signed_anew(fed.identities["site-0"], said, chosen=chosen)
    with pytest.raises(CohortError, match="site-0 chooses"):
        read_exchange(fed.fixed(attempt), message)


def test_where_all_are_neighbours_nobody_chooses():
    fed = Federation(4)
    attempt = fed.start(exchange=False)
    said = attempt.sites["site-0"].exchange(attempt.cohort)
    message = signed_anew(fed.identities["site-0"], said, chosen=b"\0\1\0\2")
    with pytest.raises(CohortError, match="site-0 chooses neighbours where all sites are"):
        read_exchange(fed.fixed(attempt), message)


def test_a_plan_of_0_1_0_for_more_sites_is_refused_by_name():
    from msgspec import UNSET
    from msgspec.structs import replace

    fed = Federation(33)
    plan = fed.plan()
    assert plan.mask_graph == "chosen-neighbours"
    with pytest.raises(PlanError, match=r"33 sites needs mask_graph 'chosen-neighbours'.*0\.1\.0"):
        replace(plan, mask_graph=UNSET)
    with pytest.raises(PlanError, match="attempt 1025 at one round is beyond 1024"):
        replace(plan, attempt=1025)
    small = fed.plan(names=fed.names[:32])
    assert small.mask_graph is UNSET
    assert b"mask_graph" not in fed.coordinator.plan(small), "a plan as 0.1.0 signed it"
    with pytest.raises(PlanError, match="has no place in a plan of 32"):
        replace(small, mask_graph="chosen-neighbours")
