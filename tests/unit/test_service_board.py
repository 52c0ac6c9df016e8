"""The board: a party counts as told once it was answered with what it is to do now."""

from __future__ import annotations

import asyncio

from fmfl_secure.runtime.task_board import Assignment, Step, TaskBoard


def _ask(board: TaskBoard, after: int = -1) -> tuple[int, Assignment]:
    return asyncio.run(board.wait("site-1", after, 0.0))


def test_a_party_is_told_by_an_answer_and_anew_by_the_next_task() -> None:
    board = TaskBoard()
    board.assign(["site-1"], Assignment(Step.JOIN, "00"))
    assert not board.was_told("site-1")
    number, task = _ask(board)
    assert task.step is Step.JOIN
    assert board.was_told("site-1")
    board.assign(["site-1"], Assignment(Step.END, "00"))
    assert not board.was_told("site-1"), "it knows the task before"
    assert _ask(board, number)[1].step is Step.END
    assert board.was_told("site-1")


def test_a_server_that_goes_down_tells_nobody() -> None:
    board = TaskBoard()
    board.assign(["site-1"], Assignment(Step.END, "00"))
    board.close()
    _ask(board)
    assert not board.was_told("site-1"), "the answer is that the server goes down"
