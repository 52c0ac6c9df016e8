"""Kinds of work, behind one interface."""

from fmfl_secure.tasks.base import Task, TaskData
from fmfl_secure.tasks.make import make_task
from fmfl_secure.tasks.text_classification import TextClassification

__all__ = ["Task", "TaskData", "TextClassification", "make_task"]
