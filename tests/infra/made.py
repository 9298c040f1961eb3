"""Objects as the API gives them."""


def pod(status, index=None, name="train-0-abcde", created="2026-11-22T10:00:00Z", **metadata):
    labels = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "canopy-data"}}]
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": created, **metadata},
        "spec": {"containers": [{"name": "canopy"}, {"name": "sidecar"}], "volumes": volumes},
        "status": status,
    }
