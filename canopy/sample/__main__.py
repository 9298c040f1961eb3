"""`python -m canopy.sample`: flags to settings, then a short account of what was written. Nothing else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

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
    parser.add_argument(
        "--output",
        type=cli.path,
        required=True,
        metavar="DIR",
        help="folder to write; reused when it is the same archive",
    )
    defaults = SampleSettings()
    for name, unit, text in (
        ("seed", "N", "which archive: the same seed, the same bytes"),
        ("labelled", "N", "chips with tags"),
        ("unlabelled", "N", "chips to predict"),
        ("size", "PIXELS", "width and height of a chip"),
        ("odd", "N", "labelled files of each other JPEG encoding"),
        ("broken", "N", "labelled files that cannot be decoded"),
        ("workers", "N", "processes that draw"),
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name), metavar=unit, help=text)
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
