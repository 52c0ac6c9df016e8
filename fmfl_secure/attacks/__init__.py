"""Attacks on a finished adapter, beside what epsilon allows: what an officer asks for.

Each is what somebody could do who has the adapter, the base model and data like those that it was
trained on. None is the best that anybody could do: what is not found proves nothing.
"""

from fmfl_secure.attacks.attack import attack_run

__all__ = ["attack_run"]
