"""A conversation with a finished run's language model, for people who look at it."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.data import Role
from fmfl_secure.errors import ConfigError
from fmfl_secure.models.language import GREEDY, Sampling
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.training.finished_run import open_run


class Talk:
    """One person's conversation.

    Args:
        run_folder: The run.
        sampling: How tokens are chosen.
        base: The base model's folder; None finds it as the run's settings say.

    Raises:
        ConfigError: The run is of no language model.
        FmflError: Run or base model are unusable.
    """

    def __init__(
        self, run_folder: Path, sampling: Sampling = GREEDY, *, base: Path | None = None
    ) -> None:
        run = open_run(run_folder, base=base)
        if not isinstance(run.task, CausalLM):
            raise ConfigError(
                f"{run.task.kind} is no language model to talk with",
                hint="Use fmfl-secure predict.",
            )
        self._task, self._sampling = run.task, sampling
        self._model = run.checked(run.task.open_adapter(run.adapter))
        self._said: list[tuple[Role, str]] = []

    @property
    def remembers(self) -> str:
        """Whether earlier messages are read, in a sentence."""
        if self._task.settings.chat:
            return "Earlier messages are read until an empty line, as far as they fit."
        return "Every message is a prompt of its own: the run trained on single prompts."

    def begin(self) -> None:
        """Begins a new conversation; earlier messages are forgotten."""
        self._said.clear()

    def answer(self, message: str) -> str:
        """Answers a message, in the light of those before it."""
        self._said.append(("user", message))
        said = self._task.answer(self._model, tuple(self._said), self._sampling)
        self._said.append(("assistant", said))
        return said
