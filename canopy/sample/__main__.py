"""`python -m canopy.sample`: flags to settings, then a short account of what was written. Nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from canopy import cli
from canopy.sample.archive import SampleSettings, SampleSummary, write_archive


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `--help`."""

    def command() -> None:
        arguments = _parser().parse_args(argv)
        start = time.monotonic()
        options = {name: value for name, value in vars(arguments).items() if name != "output"}
        summary = write_archive(arguments.output, SampleSettings(**options))
        print(_account(summary, time.monotonic() - start))

    return cli.run(command)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "python -m canopy.sample", "Draws a sample archive in the layout of Kaggle's Planet archive."
    )
    defaults = SampleSettings()
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; reused when it is the same archive",
    )
    add(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="which archive: the same seed, the same bytes",
    )
    add("--labelled", type=int, default=defaults.labelled, metavar="N", help="chips with tags")
    add("--unlabelled", type=int, default=defaults.unlabelled, metavar="N", help="chips to predict")
    add("--size", type=int, default=defaults.size, metavar="PIXELS", help="width and height of a chip")
    add(
        "--odd",
        type=int,
        default=defaults.odd,
        metavar="N",
        help="labelled files of each other JPEG encoding",
    )
    add(
        "--broken",
        type=int,
        default=defaults.broken,
        metavar="N",
        help="labelled files that cannot be decoded",
    )
    add("--workers", type=int, default=defaults.workers, metavar="N", help="processes that draw")
    return parser


def _account(summary: SampleSummary, seconds: float) -> str:
    """The summary in a few lines."""
    tags = ", ".join(f"{tag} {count}" for tag, count in summary.tag_counts.items())
    broken = ", ".join(f"{name} ({fault})" for name, fault in summary.broken.items()) or "none"
    kinds = sorted(set(summary.odd.values()))
    odd = "; ".join(
        f"{kind}: {', '.join(name for name, its in summary.odd.items() if its == kind)}" for kind in kinds
    )
    made = "already there, reused" if summary.reused else f"drawn in {seconds:.0f} s"
    return "\n".join(
        (
            f"sample archive: {summary.output} ({made})",
            f"  {summary.labelled:,} labelled chips, {summary.unlabelled:,} unlabelled",
            f"  tags: {tags}",
            f"  other encodings: {odd or 'none'}",
            f"  labels that overlook a tag: {len(summary.overlooked)}",
            f"  broken on purpose: {broken}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
