"""Where the label of a sample is: a field of its own, a key of its JSON, the folder of its key, or nowhere.

======== ================================================================ ===========
source   what is read                                                     gives
======== ================================================================ ===========
cls      the field ``cls`` (or any other name): decimal digits             a number
json:KEY the value of ``KEY`` in the field ``json``: an integer or a text  number, name
folder   the last folder of the key: ``train/cat/0001`` is a ``cat``       a name
none     nothing                                                          None
======== ================================================================ ===========

A label comes from strangers: whatever is read is bounded in size, depth and value before it is understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from gandist.errors import ConfigError, did_you_mean

LABEL_LIMIT = 1 << 20
"""Every class number is smaller: each class costs memory in a network."""

TEXT_LIMIT_BYTES = 20
NAME_LIMIT = 200
"""Longest name of a class, in characters."""

JSON_LIMIT_BYTES = 1 << 20
READ_BYTES = JSON_LIMIT_BYTES + 1
"""Whoever reads a member for a label need not read more of it than this."""

_FIELD = re.compile(r"[^\s/:]{1,100}")

T = TypeVar("T")


class LabelError(ValueError):
    """A sample has no label where one was promised, or one that cannot be; the message has no place in it."""


def check_label_source(text: str) -> None:
    """Raise :class:`ConfigError` unless ``text`` names a source of labels."""
    if text in ("none", "folder") or re.fullmatch(r"json:.+", text):
        return
    if text in ("json", "json:"):
        raise ConfigError(f"label {text!r}: say which key of the JSON holds the label, like json:label.")
    if not _FIELD.fullmatch(text):
        raise ConfigError(
            f"label {text!r}: is no source of labels.{did_you_mean(text, ('none', 'folder', 'cls', 'json:KEY'))} "
            "There are: none, folder, json:KEY, and fields of a sample such as cls."
        )


class LabelReader:
    """Reads the label of one sample after another from one source."""

    def __init__(self, source: str | None) -> None:
        if source is not None:
            check_label_source(source)
        self._source = "none" if source is None else source

    def read(self, key: str, fields: Mapping[str, T], read_member: Callable[[T], bytes]) -> int | str | None:
        """Return the class number or class name of a sample, or None where the source is none.

        Args:
            key: of the sample.
            fields: its members, by lower-case field.
            read_member: returns the content of a member, or its first ``READ_BYTES`` bytes.

        Raises:
            LabelError: the label is missing or is neither a class number nor a class name.

        """
        if self._source == "none":
            return None
        if self._source == "folder":
            return folder_of(key)
        if self._source.startswith("json:"):
            raw = read_member(_field(fields, "json"))
            return _value(raw, self._source.removeprefix("json:"))
        name = self._source.lower()
        return _number(read_member(_field(fields, name)), name)


def folder_of(key: str) -> str:
    """Return the last folder of a key, the class name of a sample in class folders; ``./`` is none."""
    folders = [part for part in key.split("/")[:-1] if part not in ("", ".")]
    if not folders or folders[-1] == "..":
        raise LabelError("lies in no folder, so it has no class name")
    return _name(folders[-1], "folder")


def class_names_of(labels: Iterable[str]) -> list[str]:
    """Return class names in order; by value where all are numbers, so that class 10 comes after class 9."""
    names = set(labels)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    return sorted(names)


def _field(fields: Mapping[str, T], name: str) -> T:
    if name not in fields:
        there = ", ".join(_shown(field) for field in sorted(fields)[:10])
        raise LabelError(f"has no {name} member, only {there}")
    return fields[name]


def _number(raw: bytes, name: str) -> int:
    text = raw[: 4 * TEXT_LIMIT_BYTES].strip()
    if len(raw) > 4 * TEXT_LIMIT_BYTES or len(text) > TEXT_LIMIT_BYTES or not text.isdigit():
        raise LabelError(f"has {_shown(raw)} as its {name}, where a class number belongs")
    return _bounded(int(text), name)


def _value(raw: bytes, key: str) -> int | str:
    """Return the number or the name under ``key`` in a JSON object."""
    if len(raw) > JSON_LIMIT_BYTES:
        raise LabelError(f"has a json member above the limit of {JSON_LIMIT_BYTES} bytes")
    try:
        content = json.loads(raw, parse_int=_json_integer)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else f"{error}"
        raise LabelError(f"has a json member that cannot be read ({what[:100]})") from None
    if not isinstance(content, dict):
        raise LabelError(f"has a json member that is a {type(content).__name__}, not an object with keys")
    if key not in content:
        known = [name for name in content if len(name) <= NAME_LIMIT][:20]
        shown = ", ".join(_shown(name) for name in known)
        raise LabelError(f"has no {key!r} in its json, which has {shown or 'nothing'}.{did_you_mean(key, known)}")
    value = content[key]
    if isinstance(value, str):
        return _name(value, f"json {key}")
    if isinstance(value, bool) or not isinstance(value, int):
        raise LabelError(f"has {_shown(value)} under {key!r} in its json, where a class number or a class name belongs")
    return _bounded(value, f"json {key}")


def _json_integer(text: str) -> int | float:
    """Read an integer; one that is too long becomes infinity, which no label is."""
    return int(text) if len(text) <= TEXT_LIMIT_BYTES else float("inf")


def _bounded(value: int, where: str) -> int:
    if not 0 <= value < LABEL_LIMIT:
        raise LabelError(f"has {value} as its {where}; class numbers run from 0 to {LABEL_LIMIT - 1}")
    return value


def _name(text: str, where: str) -> str:
    if not text.strip() or len(text) > NAME_LIMIT:
        raise LabelError(f"has {_shown(text)} as its {where}, where a class name of 1 to {NAME_LIMIT} letters belongs")
    return text


def _shown(value: object) -> str:
    """Return a value as it may be shown; a nested one by its kind, for showing it could fail as reading it did."""
    if isinstance(value, str | bytes):
        return repr(value[:40])
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)
