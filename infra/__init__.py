"""What stands around Canopy on a cluster: the image, overlays, the cloud under it, and `infra.submit`.

`submit` is the command, `settings` its flags, `running` what it does: it reads `manifests`, as an overlay has
them by `rendering`, applies them by `cluster_api` over a `connection`, and is `following` each Job, whose
`logs` and state a `screen` shows. Sentences come from pure functions: `diagnosis` says why something does not
go on, `backoff` when the next pod comes, `endings` how one ended, `refusals` what the cluster would not do.
"""
