"""Object stores, behind `beam_jobs.storage`: `gcs` and `s3`, and `objects`, what they have in common."""
