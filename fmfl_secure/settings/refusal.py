"""Explains settings that are not valid: the setting, its line, what is allowed, a guess.

`msgspec` refuses with a sentence for programmers (`Expected `int` >= 1 - at `$.adapter.rank``).
From its path, the data and the settings' types, these functions make one for whoever wrote the
file. Nothing is decided here: a file is refused before, and for what `msgspec` says.

`settings.toml_file` calls `explain` when a file does not fit the types, and `at_line` for errors
that name a setting themselves; it looks at all `texts` first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from fmfl_secure.registry import nearest

# A key of a section, or a place in a list, from 0.
Step = str | int
_AT = re.compile(r"^(?P<what>.*) - at `\$(?P<path>[^`]*)`\Z", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_ABSENT = object()
_BY_TYPE = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a section",
    "date": "a date, such as 2027-12-31",
}
_WRITE = {
    "str": "Write it in quotes.",
    "bool": "Write true or false, without quotes.",
    "array": 'Write a list, such as ["a", "b"].',
    "object": "Write a section: its name in brackets, and below it a line for each setting.",
    "date": "Write the day alone, without quotes and without a time: 2027-12-31.",
}
_BOUNDS = {">=": "at least", "<=": "at most", "<": "below", ">": "above"}
_SHOWN = 60  # characters of a value


def explain(
    error: msgspec.ValidationError, data: Any, kind: type, text: str = ""
) -> tuple[str, str]:
    """Says which setting is wrong, and what to write.

    Args:
        error: `msgspec`'s refusal.
        data: What it refused, as parsed.
        kind: What it was to become.
        text: The file's own text, to name the line in; empty where there is no file.

    Returns:
        A sentence that begins with the place (`line 12: adapter.kind = "lorra" ...`), and a hint.
    """
    found = _AT.match(str(error))
    what = found["what"] if found else str(error)
    path = _path_of(found["path"]) if found else ()
    type_ = _type_at(inspect.type_info(kind), data, path)
    said, hint, place = _sentence(what, path, _value_at(data, path), type_, kind)
    return at_line(said, text, place), hint


def at_line(said: str, text: str, path: tuple[Step, ...] = ()) -> str:
    """A sentence behind the line of the file that it is about, where that is known.

    Args:
        said: The sentence.
        text: The file's text.
        path: What it is about; by default the setting that the sentence begins with.
    """
    if found := re.match(r"(\w+)\.(\w+)\b", said):
        path = max(path, (found[1], found[2]), key=len)
    line = line_of(text, path)
    return f"line {line}: {said}" if line else said


def line_of(text: str, path: tuple[Step, ...]) -> int:
    """The line of a TOML file that a setting stands in, from 1; 0 if it was not found.

    Knows sections, lists of sections and keys at the beginning of a line, which is how settings
    files are written; the parent's line stands for what has none.
    """
    lines: dict[tuple[Step, ...], int] = {}
    counted: dict[str, int] = {}
    section: tuple[Step, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if found := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            name = found[1]
            counted[name] = counted.get(name, -1) + 1
            section = (*name.split("."), counted[name])
            lines.setdefault(section, number)
            lines.setdefault(section[:-1], number)
        elif found := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = tuple(found[1].split("."))
            lines.setdefault(section, number)
        elif found := re.match(r"""\s*["']?([\w-]+)["']?\s*=""", line):
            lines.setdefault((*section, found[1]), number)
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


def texts(data: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], str]]:
    """All texts of a file's settings, names of settings too, each with its place.

    Args:
        data: The settings as parsed.
        path: Where they stand.
    """
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield path, str(key)
            yield from texts(value, (*path, key))
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            yield from texts(value, (*path, number))


def _sentence(
    what: str, path: tuple[Step, ...], value: object, type_: inspect.Type, kind: type
) -> tuple[str, str, tuple[Step, ...]]:
    """The sentence, its hint, and the path of what it is about."""
    if found := re.match(r"Object contains unknown field `(.*)`\Z", what):
        key, known = found[1], _keys(type_)
        hint = nearest(key, known) or _elsewhere(key, path, kind)
        place = f" of {named(path)}" if path else ""
        said = f'"{key}" is no setting{place}'
        return said, f"{hint}Known: {', '.join(known)}.", (*path, key)
    if found := re.match(r"Object missing required field `(.*)`\Z", what):
        whole = (*path, found[1])
        return f"{named(whole)} is missing", _example(found[1], _step(type_, None, found[1])), path
    shown = f"{named(path)} = {_shown(value)}" if path else "the file"
    names = _names(type_)
    if what.startswith("Invalid") or ("matching regex" in what and names):
        hint = f"{nearest(str(value), names)}It is one of {', '.join(names)}."
        return f"{shown} is not known", f"{hint} {_described(type_)}".strip(), path
    fault = _fault(what)
    if not fault:  # a rule of the settings' own, which names its settings itself
        return what, "", path
    return f"{shown} {fault}", _described(type_) or _how_to_write(what), path


def _how_to_write(what: str) -> str:
    """What to write for a value of the wrong type or length; empty of other faults."""
    if found := re.match(r"Expected `([^`]+)`, got ", what):
        return _WRITE.get(found[1].removesuffix(" | null"), "")
    if re.match(r"Expected `\w+` of length >=", what):
        return "Write what is meant between them, or leave the setting out where it may be."
    return "Write less." if re.match(r"Expected `\w+` of length <=", what) else ""


def _fault(what: str) -> str:
    """Words the fault of one value, of `msgspec`'s sentence; empty of other sentences."""
    if "matching regex" in what:
        return "cannot be"
    if found := re.match(r"Expected `(.+)`, got `.+`\Z", what):
        wanted = [each for each in found[1].split(" | ") if each != "null"]
        return f"is not {' or '.join(_BY_TYPE.get(each, each) for each in wanted)}"
    if found := re.match(r"Expected `\w+` (>=|<=|<|>) (.*)\Z", what):
        return f"has to be {_BOUNDS[found[1]]} {_number(found[2])}"
    if found := re.match(r"Expected `(\w+)` of length (>=|<=)? ?(\d+)", what):
        least = f"{_BOUNDS[found[2]]} " if found[2] else ""
        noun = "character" if found[1] == "str" else "value"
        return f"has to have {least}{found[3]} {noun}{'' if found[3] == '1' else 's'}"
    return ""


def _path_of(text: str) -> tuple[Step, ...]:
    return tuple(key or int(place) for key, place in _STEP.findall(text))


def named(path: tuple[Step, ...]) -> str:
    """A setting's name from its place: `adapter.kind`, or `sites[2].name`, counted from 1."""
    words = ""
    for step in path:
        if isinstance(step, int):
            words += f"[{step + 1}]"
        else:
            words += f".{step}" if words else step
    return words


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # a date, say
        text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _number(text: str) -> str:
    return f"{float(text):.15g}" if re.fullmatch(r"[\d.e+-]+", text) else text


def _value_at(data: Any, path: tuple[Step, ...]) -> object:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return _ABSENT
    return data


def _type_at(type_: inspect.Type, data: Any, path: tuple[Step, ...]) -> inspect.Type:
    for step in path:
        type_ = _step(type_, data, step)
        data = _value_at(data, (step,))
    return _plain(type_, data)


def _step(type_: inspect.Type, data: Any, step: Step) -> inspect.Type:
    type_ = _plain(type_, data)
    if isinstance(type_, inspect.StructType):
        if type_.tag_field == step:
            return inspect.LiteralType((type_.tag,))
        for field in type_.fields:
            if field.encode_name == step:
                return field.type
    if isinstance(type_, inspect.VarTupleType | inspect.ListType):
        return type_.item_type
    if isinstance(type_, inspect.TupleType) and isinstance(step, int):
        return type_.item_types[step]
    if isinstance(type_, inspect.UnionType):  # of sections, which a name tells apart
        tags = [t.tag for t in type_.types if isinstance(t, inspect.StructType)]
        return inspect.LiteralType(tuple(tag for tag in tags if isinstance(tag, str)))
    return inspect.AnyType()


def _plain(type_: inspect.Type, data: Any) -> inspect.Type:
    """Without what is said about it, and of several that one which the data are of."""
    if isinstance(type_, inspect.Metadata):
        return type_
    if isinstance(type_, inspect.UnionType):
        held = [t for t in type_.types if not isinstance(t, inspect.NoneType)]
        if len(held) == 1:
            return held[0]
        if isinstance(data, Mapping):
            for each in held:
                if isinstance(each, inspect.StructType) and each.tag == data.get(each.tag_field):
                    return each
    return type_


def _keys(type_: inspect.Type) -> list[str]:
    if not isinstance(type_, inspect.StructType):
        return []
    tag = [type_.tag_field] if type_.tag_field else []
    return [*tag, *(field.encode_name for field in type_.fields)]


def _elsewhere(key: str, path: tuple[Step, ...], kind: type) -> str:
    """Which section has a setting of this name, if one has."""
    for section in msgspec.structs.fields(kind):
        if section.encode_name not in path:
            type_ = inspect.type_info(section.type)
            if key in _keys(type_):
                return f"{key} is a setting of [{section.encode_name}]. "
    return ""


def _example(key: str, type_: inspect.Type) -> str:
    """Proposes a line for a setting that is missing."""
    if names := _names(type_):
        return f"Write {key} = " + " or ".join(f'"{name}"' for name in names) + "."
    plain = type_.type if isinstance(type_, inspect.Metadata) else type_
    if isinstance(plain, inspect.StructType | inspect.UnionType):
        return f"Write a section [{key}]."
    words = {
        inspect.IntType: "int",
        inspect.FloatType: "float",
        inspect.StrType: "str",
        inspect.BoolType: "bool",
    }.get(type(plain), "array")
    return f"Write {key} = and {_BY_TYPE[words]}."


def _names(type_: inspect.Type) -> list[str]:
    """All values that a setting can have, where they are listed."""
    if isinstance(type_, inspect.Metadata):
        return [str(name) for name in (type_.extra_json_schema or {}).get("examples", ())]
    if isinstance(type_, inspect.LiteralType):
        return [str(value) for value in type_.values]
    if isinstance(type_, inspect.EnumType):
        return [str(member.value) for member in type_.cls]
    return []


def _described(type_: inspect.Type) -> str:
    """Describes in words what a value can be; empty where its type says it all."""
    if isinstance(type_, inspect.Metadata):
        return str((type_.extra_json_schema or {}).get("description", ""))
    if not isinstance(type_, inspect.IntType | inspect.FloatType):
        return ""
    what = "A whole number" if isinstance(type_, inspect.IntType) else "A number"
    bounds = {"at least": type_.ge, "above": type_.gt, "at most": type_.le, "below": type_.lt}
    said = [f"{words} {bound:.15g}" for words, bound in bounds.items() if bound is not None]
    return f"{what} {' and '.join(said)}." if said else ""
