"""The settings of `infra.submit`: its flags, checked.

Promises: nothing but the values; imports nothing that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command's flags."""

    paths: tuple[str, ...]  # manifest files, in the order to run
    overlay: str | None  # folder with a kustomization that changes them; None: they are applied as they stand
    follow: bool  # show the chief's log
    timeout: float  # seconds that a Job may take; 0: as long as it takes
    patience: float  # seconds that a Job may be kept from starting by something that waiting does not mend
    namespace: str | None  # None: the context's
    context: str | None  # None: the kubeconfig's current one
    replace: bool  # delete a Job that is there already, and start it anew
    force_conflicts: bool  # take over fields that somebody else has set
    delete: bool  # take away instead of apply
    delete_claims: bool  # the volumes' claims too, and the data with them
