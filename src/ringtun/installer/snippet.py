"""WiX snippets: where in a package modules go, as WiX sources say it. ::

    <DirectoryRef Id="INSTALLFOLDER">
      <Merge Id="RingtunModule" Language="0" DiskId="1" SourceFile="ringtun-amd64.msm"/>
    </DirectoryRef>
    <Feature Id="RingtunFeature" Title="Network adapter" Level="1">
      <MergeRef Id="RingtunModule"/>
    </Feature>

Read are these elements, of WiX 3 and later, at any depth of a source file or with nothing around
them; all else is left to WiX. Lines are counted for errors.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn
from xml.parsers import expat

from ringtun.installer.errors import InstallerError

__all__ = ["Feature", "Merge", "MergeRef", "Snippet"]

_NAMESPACES: Final = (
    "",
    "http://schemas.microsoft.com/wix/2006/wi",
    "http://wixtoolset.org/schemas/v4/wxs",
)
_DIRECTORIES: Final = ("Directory", "DirectoryRef", "StandardDirectory")
_FEATURES: Final = ("Feature", "FeatureRef")
# Of what is read, the attributes: of those that are a choice, each value with the bit of a
# feature's attributes that it stands for.
_CHOICES: Final = {
    "Absent": {"allow": 0, "disallow": 16},
    "AllowAbsent": {"yes": 0, "no": 16},
    "AllowAdvertise": {"yes": 0, "no": 8},
    "InstallDefault": {"local": 0, "source": 1, "followParent": 2},
    "TypicalDefault": {"install": 0, "advertise": 4},
    "FileCompression": {"yes": 0, "default": 0},
    "Primary": {"yes": 0, "no": 0},
}
_ATTRIBUTES: Final = {
    "Merge": {"Id", "Language", "DiskId", "SourceFile", "src", "FileCompression"},
    "MergeRef": {"Id", "Primary"},
    "Feature": {
        *("Id", "Title", "Description", "Level", "Display", "ConfigurableDirectory"),
        *("Absent", "AllowAbsent", "AllowAdvertise", "InstallDefault", "TypicalDefault"),
    },
}
_DISPLAYS: Final = {"hidden": 0, "expand": 1, "collapse": 2}
_VARIABLE: Final = re.compile(r"\$\((?:var\.)?([^()]*)\)")
_DECLARATION: Final = re.compile(
    r"\s*<\?xml\b[^>]*?(?:encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*?)?\?>"
)
_LARGEST: Final = 4 << 20  # bytes
_AROUND: Final = "snippet"  # what is put around all of it, so that it is one element


@dataclass(frozen=True, slots=True)
class Merge:
    """A module by the name that the snippet has for it, and the directory that it comes into."""

    id: str
    directory: str
    language: int
    disk: int
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature: one that is described, or, without ``level``, one that the package has."""

    id: str
    line: int
    parent: str | None = None
    level: int | None = None
    title: str | None = None
    description: str | None = None
    display: int = 2
    directory: str | None = None
    attributes: int = 0


@dataclass(frozen=True, slots=True)
class MergeRef:
    """That a feature has a module."""

    feature: str
    merge: str
    line: int


@dataclass(frozen=True, slots=True)
class Snippet:
    """What a snippet says, in its order; ``file`` is where it was read."""

    file: str
    merges: dict[str, Merge] = field(default_factory=dict)
    features: dict[str, Feature] = field(default_factory=dict)
    references: list[MergeRef] = field(default_factory=list)

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], variables: Mapping[str, str] | None = None
    ) -> Snippet:
        """Read a file. ``variables`` are what ``$(var.NAME)`` in it stands for.

        Paths in it are taken from where it is. `InstallerError` names file and line of what is no
        XML, is missing, unknown, there twice or refers to nothing; ``OSError`` where the file
        cannot be read.
        """
        file = os.fspath(path)
        with open(file, "rb") as opened:
            data = opened.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise InstallerError(f"it has over {_LARGEST >> 20} MiB, which is no snippet", file)
        reader = _Reader(cls(file), variables or {})
        reader.read(_text(data, file))
        return reader.found


def _text(data: bytes, file: str) -> str:
    """The text without its declaration."""
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    declared = _DECLARATION.match(data[:200].decode("latin-1"))
    if declared and declared[1]:
        encoding = declared[1]
    try:
        text = data.decode(encoding)
    except (LookupError, UnicodeError):
        raise InstallerError(f"it is no text in {encoding.removesuffix('-sig')}", file) from None
    declared = _DECLARATION.match(text)
    if declared:
        text = "\n" * declared[0].count("\n") + text[declared.end() :]
    return text


class _Reader:
    """A snippet on its way out of its text: the elements around, and what was found."""

    def __init__(self, found: Snippet, variables: Mapping[str, str]) -> None:
        self.found = found
        self._variables = variables
        self._around: list[tuple[str, str | None]] = []
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.ProcessingInstructionHandler = self._instruct

    def read(self, text: str) -> None:
        whole = f"<{_AROUND}>{text}</{_AROUND}>"
        try:
            self._parser.Parse(whole.encode("utf-8", "surrogatepass"), True)
        except expat.ExpatError as error:
            self._fail(f"it is no XML: {expat.ErrorString(error.code)}", error.lineno)
        for reference in self.found.references:
            if reference.merge not in self.found.merges:
                self._fail(f"there is no Merge {reference.merge!r}", reference.line)
        named = {reference.merge for reference in self.found.references}
        for merge in self.found.merges.values():
            if merge.id not in named:
                self._fail(
                    f"no feature has a MergeRef to {merge.id!r}, so that nothing would install it",
                    merge.line,
                )
        if not named:
            self._fail("there is no Merge in it", None)

    def _fail(self, message: str, line: int | None = -1) -> NoReturn:
        line = self._parser.CurrentLineNumber if line == -1 else line
        where = self.found.file if line is None else f"{self.found.file}:{line}"
        raise InstallerError(message, where)

    def _instruct(self, target: str, text: str) -> None:
        self._fail(
            f"<?{target} {text}?> is for WiX's preprocessor, which is not at work here: "
            "take the lines that are meant"
        )

    def _start(self, full_name: str, attributes: dict[str, str]) -> None:
        namespace, _, name = full_name.rpartition(" ")
        if namespace not in _NAMESPACES:
            name = ""
        values = {}
        if name in _ATTRIBUTES or name in _DIRECTORIES or name in _FEATURES:
            values = {key: self._expanded(value) for key, value in attributes.items()}
        if name in _ATTRIBUTES:
            self._check(name, values)
        if name == "Merge":
            self._add_merge(values)
        elif name == "MergeRef":
            self._add_reference(values)
        elif name in _FEATURES:
            self._add_feature(name, values)
        self._around.append((name, values.get("Id")))

    def _end(self, name: str) -> None:
        self._around.pop()

    def _inside(self, kinds: tuple[str, ...]) -> str | None:
        """The nearest of these elements around, by its name."""
        return next((found for kind, found in reversed(self._around) if kind in kinds), None)

    def _expanded(self, value: str) -> str:
        def variable(match: re.Match[str]) -> str:
            if match[1] not in self._variables:
                self._fail(f"{match[0]} has no value: define {match[1]}")
            return self._variables[match[1]]

        return _VARIABLE.sub(variable, value)

    def _check(self, name: str, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            if key not in _ATTRIBUTES[name]:
                self._fail(f"{name} has {key}={value!r}, which is not known here")
            choices = _CHOICES.get(key)
            if choices is not None and value not in choices:
                self._fail(
                    f"{name} has {key}={value!r}, which is not honoured here: "
                    f"{' or '.join(choices)} is"
                )

    def _required(self, name: str, values: Mapping[str, str], *keys: str) -> str:
        value = next((values[key] for key in keys if values.get(key)), None)
        if value is None:
            self._fail(f"{name} has no {keys[0]}")
        return value

    def _number(self, name: str, values: Mapping[str, str], key: str, default: int) -> int:
        text = values.get(key, str(default))
        if not (text.isascii() and text.isdecimal() and int(text[:6]) < 1 << 15):
            self._fail(f"{name} has {key}={text!r}, which is no number up to {(1 << 15) - 1}")
        return int(text)

    def _add_merge(self, values: Mapping[str, str]) -> None:
        name = self._required("Merge", values, "Id")
        source = self._required("Merge", values, "SourceFile", "src")
        directory = self._inside(_DIRECTORIES)
        if directory is None:
            self._fail(f"the Merge {name!r} is in no DirectoryRef, which says where it goes")
        if name in self.found.merges:
            first = self.found.merges[name].line
            self._fail(f"there is a Merge {name!r} already, in line {first}")
        if os.sep == "/":
            source = source.replace("\\", "/")
        self.found.merges[name] = Merge(
            name,
            directory,
            self._number("Merge", values, "Language", 0),
            self._number("Merge", values, "DiskId", 1),
            os.path.join(os.path.dirname(self.found.file), source),
            self._parser.CurrentLineNumber,
        )

    def _add_reference(self, values: Mapping[str, str]) -> None:
        name = self._required("MergeRef", values, "Id")
        feature = self._inside(_FEATURES)
        if feature is None:
            self._fail(f"the MergeRef to {name!r} is in no Feature")
        self.found.references.append(MergeRef(feature, name, self._parser.CurrentLineNumber))

    def _add_feature(self, kind: str, values: Mapping[str, str]) -> None:
        name = self._required(kind, values, "Id")
        line = self._parser.CurrentLineNumber
        if kind == "FeatureRef":
            self.found.features.setdefault(name, Feature(name, line))
            return
        display = values.get("Display", "collapse")
        shown = _DISPLAYS.get(display)
        if shown is None:
            shown = self._number("Feature", values, "Display", 2)
        if self.found.features.get(name, Feature(name, line)).level is not None:
            self._fail(f"there is a Feature {name!r} already")
        self.found.features[name] = Feature(
            name,
            line,
            self._inside(_FEATURES),
            self._number("Feature", values, "Level", 1),
            values.get("Title"),
            values.get("Description"),
            shown,
            values.get("ConfigurableDirectory"),
            sum(bits.get(values.get(key, ""), 0) for key, bits in _CHOICES.items()),
        )
