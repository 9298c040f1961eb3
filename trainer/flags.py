"""Settings whose fields are their flags: name, type, default and help are written once.

Promises: no TensorFlow; a value that its flag does not take is a mistake of the user's; of the commands that
start trainer.task all take its flags behind `--`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Sequence
from typing import Any, Literal

from canopy import cli
from canopy.cli import UserError

METAVARS = {int: "N", float: "X", str: "TEXT"}


def flag(help_text: str, default: Any = dataclasses.MISSING, metavar: str = "") -> Any:
    """A field of a dataclass that is a flag, too.

    Args:
        help_text: what it sets, with its unit.
        default: none makes the flag required.
        metavar: what stands for the value in the help, where its type does not say enough.
    """
    return dataclasses.field(default=default, metadata={"help": help_text, "metavar": metavar})


def add(parser: argparse.ArgumentParser, settings: type) -> None:
    """Gives a parser a flag for each field of a dataclass that `flag` made."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if "help" in field.metadata:
            _add(parser, field, hints[field.name])


def before_task(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Parses a command's own flags, behind which `--` and those of trainer.task may stand.

    Args:
        parser: of its own flags.
        argv: all of them; None for the process' own.

    Returns:
        Its own flags' values by name, and trainer.task's flags as they are.

    Raises:
        UserError: where a flag is none of its own or lacks a value that can be used.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    at = given.index("--") if "--" in given else len(given)
    own, unknown = parser.parse_known_args(given[:at])
    if unknown:
        raise UserError(
            f"unrecognized arguments: {' '.join(unknown)}: trainer.task's flags stand behind -- (see --help)"
        )
    return vars(own), tuple(given[at + 1 :])


def _add(parser: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any) -> None:
    required = field.default is dataclasses.MISSING
    options: dict[str, Any] = {"help": field.metadata["help"]}
    if not required:
        options["default"] = field.default
    if hint is bool:
        # A manifest can only fill in values: `--require_gpu=$(REQUIRE_GPU)`.
        options |= {"type": _truth, "nargs": "?", "const": True, "metavar": "true|false"}
    elif typing.get_origin(hint) is Literal:
        options["choices"] = typing.get_args(hint)
    else:
        options["type"] = cli.utf8 if hint is str else hint
        options["metavar"] = field.metadata["metavar"] or METAVARS[hint]
    parser.add_argument(f"--{field.name}", required=required, **options)


def _truth(text: str) -> bool:
    """What a switch's value says; a switch without a value is on."""
    if text not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"must be true or false, and is {text!r}")
    return text == "true"
