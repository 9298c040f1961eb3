"""What stands around Canopy on a cluster: the image, overlays, the cloud under it, and `infra.submit`."""
