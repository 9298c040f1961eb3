"""What a cluster's refusal means for whoever asked: pure functions from its answer to a sentence.

Promises: the sentence names the object and its file, what to do, and the cluster's own words.
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.cluster_api import RefusedError
from infra.endings import End
from infra.manifests import KubeObject, title

# Where the status and a sign within the message fit, in this order: what it means, and what to do.
MEANINGS = (
    (401, "", "the cluster does not accept these credentials ({}): log in again"),
    (
        403,
        '"system:anonymous"',
        "no credentials were sent ({}): the kubeconfig's user has none, or the login plugin that it names is "
        "missing or failed",
    ),
    (403, "quota", "the namespace's quota has no room for it ({})"),
    (403, "PodSecurity", "the namespace's Pod Security level forbids it ({})"),
    (403, " cannot ", "a right is missing ({}): k8s/rbac.yaml has those that it takes"),
    (403, "", "the cluster forbids it ({})"),
    (404, "namespaces", "the namespace is not there ({}): make it, or name another with --namespace"),
    (500, "not declared in schema", "a field is misspelt, or of a later Kubernetes than this cluster's ({})"),
    (409, "onflict", "somebody else has set fields of it ({}): --force_conflicts takes them over"),
)


def sentence(refused: RefusedError, doing: str) -> str:
    """Says what was refused, and why.

    Args:
        refused: the cluster's answer.
        doing: what was asked for, as in `applying job/canopy-train of k8s/train-job.yaml`.
    """
    for status, sign, meaning in MEANINGS:
        if refused.status == status and sign in refused.message:
            return f"{doing}: {meaning.format(refused.message)}"
    return f"{doing}: the cluster refuses it ({refused.message})"


def immutable(refused: RefusedError) -> bool:
    """Whether an object is there already and differs in a field that cannot be changed.

    A webhook refuses with 403: Kueue's, where a Job that it has not suspended is put into a queue.
    """
    return refused.status in (403, 422) and "field is immutable" in refused.message


def fields(refused: RefusedError) -> str:
    """The fields at fault, or what they have in common where the cluster does not name them."""
    return ", ".join(refused.fields) or "what a Job cannot change"


def differs(job: KubeObject, path: str, end: End | None, differences: Iterable[str]) -> str:
    """What to do about a Job that is there already, and is another one.

    Args:
        job: the file's.
        path: the file.
        end: how the cluster's Job ended; None: it has not.
        differences: an object with its fields each.
    """
    state = f"{end.sentence} with" if end else "runs with"
    return (
        f"{title(job)} of {path} is in the cluster already, and {state} other settings "
        f"({'; '.join(differences)}): nothing was changed; --replace starts this one in its place, and those "
        "of other files if the command names any; --delete takes it away, another name starts a second one"
    )
