"""Kinds of work, behind one interface."""

from fmfl_secure.tasks.base import Task, TaskData
from fmfl_secure.tasks.make import TASKS, TaskKind, make_task
from fmfl_secure.tasks.text_classification import TextClassification

__all__ = ["TASKS", "Task", "TaskData", "TaskKind", "TextClassification", "make_task"]
