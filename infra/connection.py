"""The way to a cluster.

Promises: it is found as kubectl finds it; a kubeconfig that is missing, malformed or without the context
asked for is one sentence; what is worth a new try (429, 5xx, a connection cut off) is tried again by itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.config import kube_config
from kubernetes.config.config_exception import ConfigException
from urllib3.util.retry import Retry

from canopy.cli import UserError
from infra.cluster_api import AGAIN, Cluster

TRIES = 4  # further ones, after 0, 1, 2 and 4 s, unless the server names a time


def connect(context: str | None, namespace: str | None) -> Cluster:
    """Finds the cluster as kubectl does: KUBECONFIG, ~/.kube/config, or the pod that this runs in.

    Args:
        context: the kubeconfig's context; None: its current one.
        namespace: None: the context's own, else `default`.

    Returns:
        The cluster, reached.

    Raises:
        UserError: no configuration, one that is malformed, or a context that it lacks.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would report each new try
    settings: Any = client.Configuration()
    try:
        found = _from_kubeconfig(settings, context)
    except ConfigException as missing:
        found = _from_inside(settings, missing, asked_for=context)
    except (yaml.YAMLError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        # The client checks neither that it is YAML nor that it has a kubeconfig's form.
        words = " ".join(str(error).split())
        raise UserError(
            f"the kubeconfig {kube_config.KUBE_CONFIG_DEFAULT_LOCATION} is malformed: {words}"
        ) from None
    settings.retries = Retry(
        total=TRIES,
        backoff_factor=0.5,
        status_forcelist=AGAIN,
        allowed_methods=None,  # every request here may be sent twice: apply and delete end the same
        raise_on_status=False,
    )
    return Cluster(client.ApiClient(settings), namespace or found or "default")


def _from_kubeconfig(settings: Any, context: str | None) -> str | None:
    # Not the client's own list of contexts: it wants a current one even where another is asked for.
    loader_of: Any = kube_config._get_kube_config_loader
    loader = loader_of(kube_config.KUBE_CONFIG_DEFAULT_LOCATION, active_context=context, persist_config=True)
    loader.load_and_set(settings)
    own = loader.current_context["context"].get("namespace")
    return str(own) if own else None


def _from_inside(settings: Any, missing: ConfigException, asked_for: str | None) -> str | None:
    load: Any = config.load_incluster_config
    try:
        if asked_for is not None:
            raise ConfigException(f"no context {asked_for}")
        load(client_configuration=settings)
    except ConfigException:
        raise UserError(f"no cluster: {missing} (see KUBECONFIG, ~/.kube/config, --context)") from None
    file = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return file.read_text().strip() if file.is_file() else None
