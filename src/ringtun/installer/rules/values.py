"""Categories of text: what an identifier is, a GUID, a file's name, and so on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["GUID", "VERSION", "long_name", "short_name", "why_not"]

GUID: Final = re.compile(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}")
VERSION: Final = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_LANGUAGES: Final = re.compile(r"[0-9]{1,5}(,[0-9]{1,5})*")
_SHORT: Final = re.compile(r"[^\\?|><:/*\"+,;=\[\]. ]{1,8}(\.[^\\?|><:/*\"+,;=\[\]. ]{1,3})?")
_LONG: Final = re.compile(r"[^\\?|><:/*\"]+")
_ROOT: Final = "."  # the parent's own directory


def why_not(category: str, text: str) -> str | None:
    """What keeps text from being of a category; None for one that is not checked here."""
    check = _CHECKS.get(category)
    return None if check is None else check(text)


def short_name(name: str) -> str:
    """Of ``short|long`` the short name, or the one that is both."""
    return name.partition("|")[0]


def long_name(name: str) -> str:
    """Of ``short|long`` the long name, or the one that is both."""
    return name.rpartition("|")[2]


def _identifier(text: str) -> str | None:
    if _IDENTIFIER.fullmatch(text):
        return None
    return "is no identifier: letters, digits, '_' and '.', beginning with a letter or '_'"


def _property(text: str) -> str | None:
    return _identifier(text.removeprefix("%"))


def _upper_case(text: str) -> str | None:
    return "has small letters" if text != text.upper() else _identifier(text)


def _lower_case(text: str) -> str | None:
    return "has capital letters" if text != text.lower() else None


def _guid(text: str) -> str | None:
    return None if GUID.fullmatch(text) else "is no GUID in braces and capitals"


def _version(text: str) -> str | None:
    if VERSION.fullmatch(text) and all(int(part) <= 0xFFFF for part in text.split(".")):
        return None
    return "is no version: up to four numbers up to 65535, with dots between them"


def _language(text: str) -> str | None:
    return None if _LANGUAGES.fullmatch(text) else "is no list of language numbers"


def _condition(text: str) -> str | None:
    outside = re.sub(r'"[^"]*"', "", text)
    if '"' in outside:
        return "has a quotation that does not end"
    depth = 0
    for bracket in re.findall(r"[()]", outside):
        depth += 1 if bracket == "(" else -1
        if depth < 0:
            break
    return "has brackets that do not match" if depth else None


def _filename(text: str) -> str | None:
    short, between, long = text.partition("|")
    if not _SHORT.fullmatch(short):
        return "has no short name, of up to 8 and 3 characters, alone or as 'short|long'"
    if between and not _LONG.fullmatch(long):
        return "has a long name with a character that no file's name has"
    return None


def _wild_card(text: str) -> str | None:
    """As a file's name, but for ``*`` and ``?``."""
    return _filename(text.replace("*", "x").replace("?", "x"))


def _default_dir(text: str) -> str | None:
    for part in text.split(":", 1):
        why = None if part == _ROOT else _filename(part)
        if why is not None:
            return why
    return None


def _key_path(text: str) -> str | None:
    return "begins or ends with '\\'" if text.strip("\\") != text else None


def _cabinet(text: str) -> str | None:
    if text.startswith("#"):
        return _identifier(text[1:])
    return None if _LONG.fullmatch(text) else "is no name of a file"


def _shortcut(text: str) -> str | None:
    return None if "[" in text or GUID.fullmatch(text) else _identifier(text)


_CHECKS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "Cabinet": _cabinet,
    "Condition": _condition,
    "DefaultDir": _default_dir,
    "Filename": _filename,
    "Guid": _guid,
    "Identifier": _identifier,
    "Language": _language,
    "LowerCase": _lower_case,
    "Property": _property,
    "RegPath": _key_path,
    "Shortcut": _shortcut,
    "UpperCase": _upper_case,
    "Version": _version,
    "WildCardFilename": _wild_card,
}
