"""Writes the third-party notices of an image: every installed package, its licence and its licence's text.

Promises: one section a package in alphabetical order, from the packages' own metadata and files, with what
they say of others' work within them; a package that names no licence is listed as such instead of left out.

    python infra/image/notices.py NOTICES
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import cast

TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "THIRD_PARTY", "THIRDPARTY")
PROSE = ("", ".txt", ".md", ".rst")  # beside the code, where "license.py" may be a module
RULE = "-" * 80


def main() -> int:
    """Writes the file that the first argument names."""
    output = Path(sys.argv[1])
    packages = sorted(metadata.distributions(), key=lambda package: package.name.lower())
    output.write_text("\n".join(_sections(packages)), encoding="utf-8")
    print(f"{len(packages)} packages are listed in {output}")
    return 0


def _sections(packages: Iterable[metadata.Distribution]) -> Iterable[str]:
    yield "Canopy's image holds these packages. Each is its authors' work, under the licence named."
    for package in packages:
        named = licence(cast(Message, package.metadata))
        yield f"\n{RULE}\n{package.name} {package.version}\n{named}\n{RULE}"
        yield from _texts(package)


def licence(about: Message) -> str:
    """The licence that a package's metadata names, in a line.

    Args:
        about: the package's metadata.

    Returns:
        Its SPDX expression, else its classifiers, else its free-text field's first line.
    """
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    classified = [
        str(line).rsplit(" :: ", 1)[-1]
        for line in about.get_all("Classifier") or ()
        if str(line).startswith("License ::")
    ]
    if classified:
        return ", ".join(classified)
    lines = (about.get("License") or "").strip().splitlines()
    return lines[0] if lines else "no licence is named in the package's metadata"


def _texts(package: metadata.Distribution) -> Iterable[str]:
    for file in package.files or ():
        if file.name.upper().startswith(TEXTS) and (".dist-info" in str(file) or file.suffix in PROSE):
            path = Path(str(file.locate()))
            if path.is_file():
                yield path.read_text(encoding="utf-8", errors="replace").strip()


if __name__ == "__main__":
    sys.exit(main())
