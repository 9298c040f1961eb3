"""Runs manifests one after the other on a Kubernetes cluster: applies, follows, reports.

Promises: a file is applied once every Job of the files before it has succeeded; what goes wrong is told in
words, by pod; Ctrl-C leaves running what runs, and the same command follows it again.

    python -m infra.submit k8s/preprocess-job.yaml k8s/train-job.yaml k8s/predict-job.yaml --follow
    ... the same with --overlay infra/overlays/gke: the files' objects, as the overlay renders them.

Exit codes: 0 every Job succeeded; 2 a mistake in a flag, a manifest, the rights or the image, or one that a
Job found in its own flags or input; 75 worth another try: the cluster or a node was lost, or --timeout
passed; 1 a Job failed in another way; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from canopy import cli
from canopy.cli import UserError
from infra import manifests, rendering
from infra.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Applies and follows, and returns the exit code."""
    return cli.run(lambda: _run(_parse(argv)))


def _parse(argv: Sequence[str] | None) -> Settings:
    parser = cli.Parser(
        "python -m infra.submit",
        "Applies manifests in order, each once the Jobs of the one before have succeeded.",
    )
    switch = "store_true"
    add = parser.add_argument
    add("paths", nargs="+", metavar="MANIFEST", help="YAML files, in the order to run")
    add(
        "--overlay",
        metavar="FOLDER",
        help="apply the manifests' objects as kubectl kustomize renders them there",
    )
    add("--follow", action=switch, help="show the log of each Job's chief (its pod of index 0)")
    add("--timeout", type=float, default=0.0, metavar="SECONDS", help="for each Job; 0: as long as it takes")
    add(
        "--patience",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long a Job may wait for something that waiting does not mend, such as a missing image; for "
        "a node that is still to come it waits until --timeout",
    )
    add("--namespace", metavar="NAME", help="where everything goes; else the context's namespace")
    add("--context", metavar="NAME", help="the kubeconfig's context; else its current one")
    add("--replace", action=switch, help="delete a Job that is there already, and start it anew")
    add("--force_conflicts", action=switch, help="take over fields that somebody else has set")
    add("--delete", action=switch, help="take the manifests' objects away, the last file's first")
    add("--delete_claims", action=switch, help="with --delete: volume claims too, and the data with them")
    flags = parser.parse_args(None if argv is None else list(argv))
    if not (flags.timeout >= 0 and flags.patience >= 0):  # nan is neither
        raise UserError("--timeout and --patience are seconds, and not negative")
    if flags.delete_claims and not flags.delete:
        raise UserError("--delete_claims goes with --delete")
    if flags.delete and (flags.follow or flags.replace):
        raise UserError("--delete takes away: it goes with neither --follow nor --replace")
    return Settings(**vars(flags) | {"paths": tuple(flags.paths)})


def _run(settings: Settings) -> int:
    files = manifests.load(settings.paths)
    if settings.overlay is not None:
        files = rendering.through(files, settings.overlay)
    try:
        from infra import running
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed here: images leave it out, a checkout has it"
        ) from None
    return running.run(files, settings)


if __name__ == "__main__":
    sys.exit(main())
