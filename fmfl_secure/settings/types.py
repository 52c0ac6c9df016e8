"""Types that all settings share: an immutable, strict section, and bounded values."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, get_args

import msgspec

from fmfl_secure.extensions import PACKAGE_AND_NAME

AdapterKind = Literal[
    "ffa-lora", "lora", "rolora", "lora-xs", "dora", "vera", "lokr", "ia3", "bottleneck", "prompt",
    "p-tuning", "prefix", "bitfit", "norms", "head", "full",
]  # fmt: skip
# The same, or another package's.
AnyAdapterKind = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^({'|'.join(get_args(AdapterKind))}|{PACKAGE_AND_NAME})\Z",
        examples=list(get_args(AdapterKind)),
        description="Another package's is PACKAGE:NAME.",
    ),
]
# What of a unit's id may be of no account (`fmfl_secure.data.unit_ids`).
UnitRule = Literal["case", "punctuation", "zeros", "compatibility", "exact"]
# What frozen weights of the base model are kept in.
WeightType = Literal["float32", "bfloat16", "blocks"]
# How files write where an entity begins and ends (`fmfl_secure.data.tag_schemes`).
TagScheme = Literal["bio", "bioes", "iob1"]
# Where models are computed.
Device = Literal["auto", "cpu", "cuda"]
# What a task adds on top of a base model, as a part that sites may keep for themselves.
HEAD_PART: Final = "head"
# Kinds that have a rank.
LOW_RANK_KINDS: frozenset[str] = frozenset({"lora", "ffa-lora", "rolora"})

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]  # finite: JSON has no infinity
Finite = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
# A part of an adapter: words of its parameters' names.
PartName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\Z",
        examples=["head", "lora_A", "lora_B"],
        description="Words of the names that its parameters have, with dots between.",
    ),
]
# Names become file names and appear in messages, reports and pages.
Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z",
        description="Small letters, digits, dots, dashes and underscores, at most 63 of them, "
        "beginning with a letter or digit.",
    ),
]
Digest = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(sha256:[0-9a-f]{64})?\Z",
        description="sha256: and 64 digits of 0-9 and a-f; fmfl-secure plan prints it.",
    ),
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: immutable, no unknown keys.

    Attributes:
        LATER: Settings that came after version 0.1.0. Where they stand at their defaults they are
            left out of the digest of the settings, so that what was reserved, signed or begun under
            an earlier version is still found under its name.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()


OptimizerName = Literal["adam", "sgd"]
ServerOptimizerName = Literal["average", "momentum", "adam", "yogi"]
