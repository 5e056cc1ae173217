"""Inclusion rules as data: read from TOML, applied one after another, every loss counted.

A rule is a name, a sentence, a column of the source's knees and one or more conditions on it; `dropped` says in a few
words what goes. They are applied in the
order of the file, as the boxes of a STROBE or CONSORT flow diagram are: what a rule drops is dropped among those that
the rules before it kept.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from inference.errors import DataError

CONDITIONS = ("one_of", "none_of", "at_least", "at_most", "more_than", "less_than")
_KEYS = {"name", "sentence", "dropped", "column", "missing", *CONDITIONS}
NOT_TOLD = "not told"  # where rules say nothing of the data
_LISTS = ("one_of", "none_of")
_KINDS: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("numbers", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    ("texts", lambda value: isinstance(value, str)),
    ("true and false", lambda value: isinstance(value, bool)),
)


@dataclass(frozen=True)
class Rule:
    """One inclusion rule: a knee stays when `column` meets every condition.

    `sentence` says what is true of those that stay, `loss` what is of those that go. `conditions` are of CONDITIONS
    with their values; `keep_missing` says what becomes of a knee whose value is null.
    """

    name: str
    sentence: str
    loss: str
    column: str
    conditions: Mapping[str, Any]
    keep_missing: bool = False

    def expression(self) -> pl.Expr:
        """True where a knee stays; never null."""
        column = pl.col(self.column)
        tests: dict[str, Callable[[Any], pl.Expr]] = {
            "one_of": lambda values: _among(column, values),
            "none_of": lambda values: ~_among(column, values),
            "at_least": column.ge,
            "at_most": column.le,
            "more_than": column.gt,
            "less_than": column.lt,
        }
        met = pl.all_horizontal([tests[kind](value) for kind, value in self.conditions.items()])
        return met.fill_null(self.keep_missing)


def _among(column: pl.Expr, values: list[Any]) -> pl.Expr:
    """Numbers are compared as numbers: 2 is among [2.0]."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return column.cast(pl.Float64).is_in([float(value) for value in values])
    return column.is_in(values)


@dataclass(frozen=True)
class Rules:
    """The rules of a source: its name, what the flow begins with, parameters, rules in their order.

    data, licence: whose the data are, and under which terms, for model cards.
    """

    source: str
    title: str
    parameters: Mapping[str, Any]
    rules: tuple[Rule, ...]
    text: str = field(repr=False)  # the TOML as it was read, for the copy beside the cohort
    data: str = NOT_TOLD
    licence: str = NOT_TOLD


@dataclass(frozen=True)
class Counts:
    """How many there are of each; a knee of an image."""

    patients: int
    studies: int
    images: int
    knees: int

    def less(self, other: "Counts | SeriesCounts") -> "Counts":
        """What is gone when `other` is left."""
        return Counts(*(mine - left for mine, left in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class SeriesCounts:
    """How many there are of each, where a row is a series of one knee; a knee of a patient, whenever it was imaged."""

    patients: int
    studies: int
    series: int
    knees: int

    def less(self, other: "Counts | SeriesCounts") -> "SeriesCounts":
        """What is gone when `other` is left."""
        return SeriesCounts(*(mine - left for mine, left in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Step:
    """One box of the flow: what a rule kept and dropped; the first has no loss."""

    name: str
    sentence: str
    loss: str
    kept: Counts | SeriesCounts
    dropped: Counts | SeriesCounts


def shipped(source: str) -> Path:
    """The rules that come with Genu for a source (mrkr, oai_xr, oai_mri, table, table_series)."""
    return Path(str(files("training.cohorts") / f"{source}.toml"))


def read_rules(path: Path, source: str, overrides: Mapping[str, Any] | None = None) -> Rules:
    """Read a TOML file of rules.

    Args:
        path: the file.
        source: the source that it must be for.
        overrides: parameters that replace those of the file.

    Raises:
        DataError: the file is missing, no TOML, for another source, or a rule is not one; names the rule and the key.
    """
    if not path.is_file():
        raise DataError(f"the rules {path} are missing: leave --rules out for those that come with Genu.")
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} is no TOML that can be read ({error}).") from error
    if content.get("source") != source:
        raise DataError(f"{path} holds rules for {content.get('source')!r}; this cohort is of {source!r}.")
    parameters, entries = content.get("parameters", {}), content.get("rule", [])
    if not isinstance(parameters, dict):
        raise DataError(f"{path}: parameters are written as a [parameters] table.")
    unknown = [name for name in overrides or {} if name not in parameters]
    if unknown:
        raise DataError(f"{path} has no parameter {', '.join(unknown)}; it has {', '.join(parameters) or 'none'}.")
    parameters |= overrides or {}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: rules are written as [[rule]] tables.")
    rules = tuple(_rule(path, entry, parameters) for entry in entries)
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has more than one rule of the name {', '.join(twice)}.")
    data, licence = (_said(path, content, key) for key in ("data", "licence"))
    return Rules(source, str(content.get("title", source)), parameters, rules, text, data, licence)


def _said(path: Path, content: Mapping[str, Any], key: str) -> str:
    """Words about the data, in one line."""
    said = content.get(key, NOT_TOLD)
    if not isinstance(said, str) or not said.strip():
        raise DataError(f"{path}: {key} is {said!r}; it must be text about the data, or be left out.")
    return " ".join(said.split())


def _rule(path: Path, entry: Mapping[str, Any], parameters: Mapping[str, Any]) -> Rule:
    name = entry.get("name", "without a name")
    odd = sorted(set(entry) - _KEYS)
    if odd:
        raise DataError(f"{path}, rule {name!r}: {', '.join(odd)} is no key of a rule; {', '.join(sorted(_KEYS))} are.")
    lacking = [key for key in ("name", "sentence", "column") if not isinstance(entry.get(key), str)]
    if lacking:
        raise DataError(f"{path}, rule {name!r} lacks {', '.join(lacking)}.")
    given = {kind: entry[kind] for kind in CONDITIONS if kind in entry}
    if not given:
        raise DataError(f"{path}, rule {name!r} has no condition; there are {', '.join(CONDITIONS)}.")
    conditions = {kind: _value(path, str(name), kind, value, parameters) for kind, value in given.items()}
    if entry.get("missing", "drop") not in ("drop", "keep"):
        raise DataError(f"{path}, rule {name!r}: missing is {entry['missing']!r}; it must be drop or keep.")
    filled = {**parameters, **conditions}
    sentence = _filled(entry["sentence"], filled)
    loss = _filled(str(entry.get("dropped", f"not: {sentence}")), filled)
    return Rule(entry["name"], sentence, loss, entry["column"], conditions, entry.get("missing") == "keep")


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """Text with {names} replaced by their values."""
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def _value(path: Path, name: str, kind: str, value: Any, parameters: Mapping[str, Any]) -> Any:
    """The value of a condition; text in place of a number is the name of a parameter."""
    if kind in _LISTS:
        if not isinstance(value, list) or not value:
            raise DataError(f"{path}, rule {name!r}: {kind} is {value!r}; it must be a list of values.")
        if not any(all(map(is_one, value)) for _, is_one in _KINDS):
            kinds = " or ".join(word for word, _ in _KINDS)
            raise DataError(f"{path}, rule {name!r}: {kind} is {value!r}; all must be of one kind, {kinds}.")
        return value
    if isinstance(value, str):
        if value not in parameters:
            raise DataError(f"{path}, rule {name!r}: {kind} names {value!r}, which is no parameter of the file.")
        value = parameters[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{path}, rule {name!r}: {kind} is {value!r}; it must be a number or a parameter's name.")
    return value


def apply(knees: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, list[Step]]:
    """The knees that every rule keeps, and the flow.

    Args:
        knees: one row a knee of an image; an image of which no knee is known has one row, whose `knee` is null. Or
            one row a series of a knee (SeriesInstanceUID without SOPInstanceUID), with the knee's name in `of_knee`.
        rules: applied in their order.

    Raises:
        DataError: a rule asks for a column that the source has not, or compares it with something of another kind.
    """
    steps = [Step("source", rules.title, "", before := count(knees), before.less(before))]
    for rule in rules.rules:
        if rule.column not in knees.columns:
            raise DataError(
                f"rule {rule.name!r} asks for the column {rule.column!r}; there are {', '.join(sorted(knees.columns))}."
            )
        kind = knees.schema[rule.column]
        odd = f"rule {rule.name!r}: the column {rule.column!r} is of {kind}, which {dict(rule.conditions)} is not."
        if not kind.is_numeric() and kind != pl.Null and set(rule.conditions) - set(_LISTS):
            raise DataError(odd)  # polars would compare a date with a number of days since 1970
        try:
            knees = knees.filter(rule.expression())
        except pl.exceptions.PolarsError as error:
            raise DataError(odd) from error
        kept = count(knees)
        steps.append(Step(rule.name, rule.sentence, rule.loss, kept, before.less(kept)))
        before = kept
    return knees, steps


def count(knees: pl.DataFrame) -> Counts | SeriesCounts:
    """Patients, studies, images or series, and knees among these rows."""
    if "SOPInstanceUID" in knees.columns:
        return Counts(*_distinct(knees, "SOPInstanceUID", "knee"))
    return SeriesCounts(*_distinct(knees, "SeriesInstanceUID", "of_knee"))


def _distinct(knees: pl.DataFrame, *columns: str) -> list[int]:
    return [knees[name].drop_nulls().n_unique() for name in ("PatientID", "StudyInstanceUID", *columns)]
