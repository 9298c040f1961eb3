"""The README's picture of the report: the top of a report.html as Chromium draws it.

Promises: nothing but the file is read; the picture is of the sample archive's report when that is given.

    python -m docs.screenshot build/demo/report/report.html docs/report.png
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from canopy import cli
from canopy.cli import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1200, 1240  # pixels: the verdict, the checks and the first tags


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m docs.screenshot`."""
    return cli.run(lambda: _shoot(argv))


def _shoot(argv: Sequence[str] | None) -> None:
    parser = cli.Parser("python -m docs.screenshot", "Makes a picture of the top of a report.")
    parser.add_argument("report", type=Path, help="a report.html")
    parser.add_argument("picture", type=Path, help="the .png to write")
    flags = parser.parse_args(argv)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"no browser: none of {', '.join(BROWSERS)} is in PATH")
    if not flags.report.is_file():
        raise UserError(f"{flags.report}: there is no such file")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(flags.report.resolve().as_uri())
        tab.screenshot(path=flags.picture)
        chromium.close()
    print(f"{flags.picture}: {flags.picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
