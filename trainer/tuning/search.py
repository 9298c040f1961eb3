"""The space that a search looks through: which flags of trainer.task vary, and between what.

Promises: a space is written and stored as text (`3e-4..1e-2:log`, `96..224:32`, `d4,none`), every value drawn
from it is a flag that `trainer.config` takes, and a mistake in it is found before the first trial.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from canopy.cli import UserError
from trainer import config
from trainer.config import Config

Value = float | int | str | bool

# Ranges around the defaults of training; the image sizes are near those for which ImageNet weights were
# published. A flag that the user fixes is left out.
DEFAULTS = {
    "learning_rate": "1e-4..1e-2:log",
    "weight_decay": "1e-4..1e-1:log",
    "augment": "d4,none",
    "image_size": "96..224:32",
    "dropout": "0..0.5",
    "fine_tune_from_epoch": "0..2",
    "loss": "bce,focal,asymmetric",
}
# The search itself sets these, or they change nothing that is learned.
NOT_SEARCHED = config.RESUMABLE | {"init_from"}
MOST_STEPS = 10**12  # of a range: far from where floats, and Optuna's decimals, can no longer tell them apart
DIGITS = 4  # of a drawn number: a command line to paste has no use for sixteen


@dataclass(frozen=True)
class Choice:
    """One of several values that have no order."""

    values: tuple[Value, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def probes(self) -> tuple[Value, ...]:
        """The values to check before a search."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included."""

    low: float
    high: float
    whole: bool = False  # whole numbers only
    log: bool = False  # drawn evenly in its logarithm
    step: float | None = None  # distance of neighbours; None: any number, or any whole one

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return self.step is None or math.isclose(steps, round(steps), abs_tol=1e-6)

    def probes(self) -> tuple[Value, ...]:
        """The values to check before a search: each step where steps are few, else both ends."""
        kind = int if self.whole else float
        count = (self.high - self.low) / self.step if self.step else math.inf
        if self.step and count <= 100:
            return tuple(kind(min(self.low + i * self.step, self.high)) for i in range(round(count) + 1))
        return kind(self.low), kind(self.high)

    def rounded(self, value: float) -> float:
        """A drawn number in `DIGITS` digits: its own, or more where the range or its steps are narrow."""
        finest = min(abs(value) or math.inf, self.high - self.low, self.step or math.inf)
        places = DIGITS - 1 - math.floor(math.log10(finest))
        return min(max(round(value, places), self.low), self.high)


@dataclass(frozen=True)
class Space:
    """The flags that are searched, each with its text and what that means."""

    texts: dict[str, str]
    parts: dict[str, Choice | Range]

    @staticmethod
    def of(texts: Mapping[str, str]) -> Space:
        """Reads the text of each flag.

        Raises:
            UserError: for a flag that there is not, or a text that means nothing.
        """
        return Space(dict(texts), {name: _part(name, text) for name, text in texts.items()})

    def baseline(self) -> dict[str, Value]:
        """The defaults of `Config`, as far as the space holds them: where a search begins."""
        fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Config)}
        return {name: fields[name] for name, part in self.parts.items() if fields[name] in part}

    def probes(self) -> Iterator[dict[str, Value]]:
        """Sets of values in which each value to check comes up at least once."""
        columns = {name: itertools.cycle(part.probes()) for name, part in self.parts.items()}
        for _ in range(max(len(part.probes()) for part in self.parts.values())):
            yield {name: next(column) for name, column in columns.items()}

    def tidy(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Drawn values as a command line has them: numbers of a range rounded, named ones as they are."""
        tidied: dict[str, Value] = {}
        for name, value in params.items():
            part, tidied[name] = self.parts[name], value
            if isinstance(part, Range) and isinstance(value, float):
                tidied[name] = part.rounded(value)
        return tidied


def chosen(given: Iterable[str], fixed: Iterable[str]) -> Space:
    """The space of a search: the defaults, changed by what is given, without what is fixed.

    Args:
        given: `NAME=VALUES`, as `--space` takes it.
        fixed: names of the flags that have one value in all trials.

    Raises:
        UserError: for a text that cannot be read, a name that is fixed too, or an empty space.
    """
    taken = set(fixed)
    texts = {name: text for name, text in DEFAULTS.items() if name not in taken}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise UserError(f"--space {each!r} must be NAME=VALUES, such as learning_rate=1e-4..1e-2:log")
        if name in taken:
            raise UserError(f"--space {each}: --{name} is fixed behind -- and cannot be searched")
        texts[name] = text
    if not texts:
        raise UserError("nothing is left to search: every flag of the space is fixed behind --")
    return Space.of(texts)


def names(flags: Sequence[str]) -> list[str]:
    """The names of the flags in a command line, without dashes."""
    return [flag[2:].partition("=")[0] for flag in flags if flag.startswith("--")]


def flags(params: Mapping[str, Value]) -> list[str]:
    """Turns values into words of a command line; a switch takes its value behind an equals sign."""
    words: list[str] = []
    for name, value in params.items():
        if isinstance(value, bool):
            words.append(f"--{name}={str(value).lower()}")
        else:
            words += [f"--{name}", str(value)]
    return words


def _part(name: str, text: str) -> Choice | Range:
    """What `text` means for the flag `name`; what is below it raises only the end of the sentence."""
    try:
        hint = typing.get_type_hints(Config).get(name)
        if hint is None:
            raise UserError(f"trainer.task has no flag --{name}")
        if name in NOT_SEARCHED:
            raise UserError(f"--{name} cannot be searched")
        found = re.fullmatch(r"([^,]+?)\.\.([^,:]+)(?::(\S+))?", text)
        return _range(hint, *found.groups()) if found and hint in (int, float) else _choice(hint, text)
    except UserError as error:
        raise UserError(f"--space {name}={text}: {error}") from error


def _range(hint: type, low: str, high: str, how: str | None) -> Range:
    first, last, whole = _number(hint, low), _number(hint, high), hint is int
    if not first < last:
        raise UserError("the first end must be below the second")
    if how == "log":
        if first <= 0:
            raise UserError("a logarithm needs ends above 0")
        return Range(first, last, whole=whole, log=True)
    step = None if how is None else _number(hint, how)
    if step is not None:
        # In decimals, as they are written and as Optuna counts: in binary 0.2 does not fit between 0.1 and
        # 0.3, and three times 0.1 is more than 0.3.
        start, end, by = (Decimal(str(number)) for number in (first, last, step))
        if not 0 < by <= end - start:
            raise UserError("the step must be above 0 and fit between the ends")
        if by * MOST_STEPS < end - start:
            raise UserError(f"the step is so small that more than {MOST_STEPS:,} fit between the ends")
        # Optuna would do the same, with a warning: the last step is the end.
        last = float(end - (end - start) % by)
    return Range(first, last, whole=whole, step=step)


def _choice(hint: type, text: str) -> Choice:
    values = [_value(hint, word.strip()) for word in text.split(",")]
    if len(set(values)) != len(values):
        raise UserError("a value stands there twice")
    return Choice(tuple(values))


def _number(hint: type, word: str) -> float:
    try:
        value = float(hint(word))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{word!r} is not {'a whole number' if hint is int else 'a number'}") from error
    if not math.isfinite(value):
        raise UserError(f"{word!r} is not finite")
    return value


def _value(hint: type, word: str) -> Value:
    if hint is bool:
        if word not in ("true", "false"):
            raise UserError(f"{word!r} is neither true nor false")
        return word == "true"
    if hint in (int, float):
        number = _number(hint, word)
        return int(number) if hint is int else number
    options = typing.get_args(hint)
    if options and word not in options:
        raise UserError(f"{word!r} is none of {', '.join(map(str, options))}")
    if not word:
        raise UserError("a value is empty")
    return word
