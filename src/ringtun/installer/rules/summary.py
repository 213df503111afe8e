"""Rules about the summary, by which Windows knows what kind of file it has before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.rules.rule import Problem, rule
from ringtun.installer.rules.values import GUID
from ringtun.installer.summary import Property

__all__ = ["RULES", "languages", "platform"]

_TEMPLATE: Final = re.compile(r"(Intel|x64|Arm|Arm64|Intel64)?;[0-9]{1,5}(,[0-9]{1,5})*")
_OLDEST: Final = {"x64": 200, "Intel64": 200, "Arm": 500, "Arm64": 500}
_MOST_WORDS: Final = 15
_SECURITY: Final = (0, 2, 4)


def platform(database: Database) -> str:
    """For which processor it is; ``"Intel"`` where it does not say."""
    return _template(database).partition(";")[0] or "Intel"


def languages(database: Database) -> list[str]:
    """The numbers of the languages that it is in."""
    return _template(database).partition(";")[2].split(",")


def _template(database: Database) -> str:
    return str(database.summary.get(Property.TEMPLATE, ""))


@rule("summary", "ICE39")
def summary(database: Database) -> Iterator[Problem]:
    """The summary says the platform and the languages, the package's code, and which version of
    Windows Installer it takes.
    """
    said = database.summary
    template, code = said.get(Property.TEMPLATE), said.get(Property.REVISION)
    if not isinstance(template, str) or not _TEMPLATE.fullmatch(template):
        yield None, f"the summary's template is {template!r:.60}, and should be like 'x64;1033'"
    if not isinstance(code, str) or not GUID.fullmatch(code):
        yield None, f"the package's code is {code!r:.60}: no GUID in braces and capitals"
    pages, words = said.get(Property.PAGES), said.get(Property.WORDS)
    oldest = _OLDEST.get(platform(database), 100)
    if not isinstance(pages, int) or pages < oldest:
        yield None, f"the summary asks for the installer {pages!r:.20}, and has to for {oldest}"
    if not isinstance(words, int) or not 0 <= words <= _MOST_WORDS:
        yield None, f"the summary's kind of source is {words!r:.20}, and has four bits"
    security = said.get(Property.SECURITY)
    if security is not None and security not in _SECURITY:
        yield None, f"the summary's security is {security!r:.20}, and may be 0, 2 or 4"


RULES: Final = (summary,)
