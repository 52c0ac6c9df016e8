"""What counts against a site, for how long, and what is forgiven."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from aggregation.protocol import MAX_ATTEMPTS
from fmfl_secure.errors import RunError
from fmfl_secure.run.refusal_codes import MEANINGS, OF_ATTEMPTS
from fmfl_secure.runtime.inbox import INVALID, Inbox, failures
from fmfl_secure.runtime.left_out import LeftOut
from fmfl_secure.runtime.rehearsals import REHEARSALS, Rehearsals
from fmfl_secure.runtime.waiting import AttemptOver
from fmfl_secure.storage.message_memory import MemoryMessageStore

NAMES = ("site-1", "site-2", "site-3", "site-4")


class Run:
    """Attempts, one after the other, with what each ended by."""

    def __init__(self) -> None:
        self.store = MemoryMessageStore()
        self.total = 0
        self.here = set(NAMES)
        waiter = SimpleNamespace(is_present=lambda name: name in self.here)
        self.left_out = LeftOut(self.store, waiter, "ab" * 8, lambda: self.total)  # type: ignore[arg-type]

    def attempt(
        self,
        round_number: int,
        number: int,
        missing: tuple[str, ...] = (),
        outvoted: tuple[str, ...] = (),
        **said: bytes,
    ) -> None:
        self.total += 1
        for name, code in said.items():
            key = name.replace("_", "-")
            self.store.note("ab" * 8, failures(round_number, number), key, code)
        place = (round_number, number)
        over = AttemptOver("over")
        over.missing, over.outvoted = missing, outvoted
        self.left_out.count(SimpleNamespace(place=place, invited=NAMES, accusers={}), over)  # type: ignore[arg-type]

    def chosen(self, round_number: int, least: int = 3) -> list[str]:
        return self.left_out.choose(round_number, NAMES, lambda names: len(names) >= least)


@pytest.mark.parametrize(
    ("missing", "said", "word"),
    [
        ((), {"site_4": INVALID}, "invalid"),
        (("site-4",), {"site_4": INVALID}, "invalid"),
        (("site-4",), {}, "silent"),
        (("site-4",), {"site_4": b"refused"}, "failed"),
    ],
    ids=["invalid, and gone on without", "invalid", "silent", "failed"],
)
def test_who_fails_an_attempt_by_name_is_left_out_of_five(missing, said, word) -> None:
    run = Run()
    run.attempt(1, 1, missing, **said)
    assert run.left_out.codes() == {"site-4": f"attempt.{word}"}
    assert f"attempt.{word}" in set(OF_ATTEMPTS) - set(MEANINGS), "no site says it of itself"
    for number in range(2, 6):
        assert run.chosen(number) == list(NAMES[:3])
        run.attempt(number, 1)
    run.attempt(6, 1)
    assert run.left_out.codes() == {}
    assert run.chosen(7) == list(NAMES)


@pytest.mark.parametrize("said", [{}, {"site_4": b"lost"}], ids=["silent", "restarted"])
def test_who_went_away_once_is_forgiven_and_not_twice_in_a_round(said) -> None:
    run = Run()
    run.here.discard("site-4")
    run.attempt(1, 1, ("site-4",), **said)
    assert run.chosen(1) == list(NAMES)
    run.attempt(2, 1, ("site-4",), **said)
    assert run.chosen(2) == list(NAMES), "once in each of two rounds"
    run.attempt(2, 2, ("site-4",), **said)
    assert run.chosen(2) == list(NAMES[:3])
    assert run.left_out.codes() == {"site-4": "attempt.gone"}


def test_sites_that_fail_together_are_blamed_for_nothing_at_first() -> None:
    run = Run()
    both = {"site_1": b"refused", "site_2": b"refused"}
    run.attempt(1, 1, ("site-1", "site-2"), **both)
    assert run.left_out.codes() == {}
    assert run.chosen(1) == list(NAMES)
    run.attempt(1, 2, ("site-1", "site-2"), **both)
    assert run.left_out.codes() == dict.fromkeys(("site-1", "site-2"), "attempt.several")
    with pytest.raises(RunError, match="two attempts failed by site-1, site-2") as end:
        run.chosen(1)
    assert "whose fault that is cannot be told" in end.value.hint


def test_where_the_others_are_too_few_it_is_asked_once_more() -> None:
    run = Run()
    run.attempt(1, 1, ("site-4",))
    assert run.chosen(1, least=4) == list(NAMES)
    run.attempt(1, 2, ("site-4",))
    with pytest.raises(RunError, match="3 sites are left for round 1, which are too few"):
        run.chosen(1, least=4)
    assert run.chosen(2, least=4) == list(NAMES), "and in another round again"


def test_it_is_remembered_by_the_store() -> None:
    run = Run()
    run.attempt(1, 1, ("site-4",))
    again = LeftOut(run.store, SimpleNamespace(), "ab" * 8, lambda: run.total)  # type: ignore[arg-type]
    assert again.of() == {"site-4": "silent"}


def test_one_that_refuses_what_others_verified_is_forgiven_once_and_then_out_for_good() -> None:
    run = Run()
    run.attempt(1, 1, outvoted=("site-4",))
    assert run.chosen(2) == list(NAMES)
    run.attempt(2, 1, outvoted=("site-4",))
    assert run.left_out.codes() == {"site-4": "attempt.refused"}
    for number in range(3, 30):
        assert run.chosen(number) == ["site-1", "site-2", "site-3"]
        run.attempt(number, 1)
    assert run.chosen(30, least=4) == list(NAMES), "where the others are too few it is asked again"


def test_a_refusal_counts_whatever_else_its_site_sends() -> None:
    """It could have it forgotten by one message of no form, and spoil a round of six for ever."""
    run = Run()
    for number in (1, 7):
        run.attempt(number, 1, outvoted=("site-4",), site_4=INVALID)
        assert "site-4" not in run.chosen(number)
        for following in range(number + 1, number + 6):
            run.attempt(following, 1)
    assert run.left_out.codes() == {"site-4": "attempt.refused"}
    assert run.chosen(20) == list(NAMES[:3])


@pytest.mark.parametrize("word", ["invalid", "silent", "failed"])
def test_what_a_site_is_left_out_for_is_not_forgiven_for_its_going_away(word) -> None:
    """As in a rehearsal: it sends what does not hold, and then does not reveal."""
    run = Run()
    attempt = SimpleNamespace(place=(0, 1), invited=NAMES, accusers={})
    run.left_out.strike(attempt, "site-4", word)  # type: ignore[arg-type]
    run.here.discard("site-4")
    run.left_out.unanswered(attempt, "site-4")  # type: ignore[arg-type]
    assert run.left_out.codes() == {"site-4": f"attempt.{word}"}
    assert run.left_out.twice(0) == set(), "it was one attempt"
    assert run.chosen(1) == list(NAMES[:3])


def test_who_sent_what_does_not_hold_cannot_say_at_once_that_it_lost_its_keys() -> None:
    """Its word came between the server's look at what is noted and its note, and was the last."""
    told: list[threading.Thread] = []

    class Slow(MemoryMessageStore):
        def notes(self, run: str, kind: str) -> dict[str, bytes]:
            found = super().notes(run, kind)
            if not told:
                told.append(threading.Thread(target=inbox.convict, args=(run, (1, 1), ["site-4"])))
                told[0].start()
                told[0].join(0.2)
            return found

    inbox = Inbox(Slow(), part_bytes=1 << 20)
    inbox.open_attempt(SimpleNamespace(plan=SimpleNamespace(run="ab" * 8), place=(1, 1)))  # type: ignore[arg-type]
    inbox.fail("site-4", "ab" * 8, 1, 1, "lost")
    told[0].join()
    assert inbox.store.notes("ab" * 8, failures(1, 1)) == {"site-4": INVALID}


def test_a_run_whose_rehearsals_are_used_up_goes_on_without() -> None:
    """No plan of a further one holds: whoever spoils so many attempts ended the run by that."""
    store, run = MemoryMessageStore(), "ab" * 8
    for number in range(1, MAX_ATTEMPTS + 1):
        store.note(run, REHEARSALS, str(number), b"")
    held = Rehearsals(
        "after-failure",
        SimpleNamespace(run=run, plan_rehearsal=lambda *_: pytest.fail("another is planned")),  # type: ignore[arg-type]
        open_attempt=lambda _: pytest.fail("another is held"),
        steps=SimpleNamespace(),  # type: ignore[arg-type]
        inbox=SimpleNamespace(store=store),  # type: ignore[arg-type]
        left_out=SimpleNamespace(),  # type: ignore[arg-type]
    )
    assert not held.after_failure(AttemptOver("over"), {}, 9, lambda: list(NAMES))
    assert len(store.notes(run, REHEARSALS)) == MAX_ATTEMPTS
