resource "google_storage_bucket" "data" {
  #checkov:skip=CKV_GCP_62:access logs of a bucket of training data would cost more than they tell; Cloud Audit Logs are there to be switched on
  name                        = local.bucket
  project                     = var.project
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.bucket_force_destroy

  # What a run replaced or deleted by mistake can be had back: for a week as an earlier version, which is then deleted
  # and for another week can be restored. It is paid for until then.
  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 7
    }
    action {
      type = "Delete"
    }
  }

  # Parts of uploads that were cut off are no objects, but are paid for.
  lifecycle_rule {
    condition {
      age = 2
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  # What nobody has read for a month costs half, and moves back when it is read, without a fee. A lifecycle rule goes
  # by age: it would move records that are read every day, and each reading would be paid for.
  autoclass {
    enabled                = true
    terminal_storage_class = "NEARLINE"
  }

  dynamic "encryption" {
    for_each = local.kms
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:the key is the user's choice (kms_key)
  project       = var.project
  location      = var.region
  repository_id = local.name
  description   = "Canopy's images"
  format        = "DOCKER"
  kms_key_name  = one(local.kms)
  labels        = local.labels

  # A tag means one image for ever: a pod that restarts runs what it ran before.
  docker_config {
    immutable_tags = true
  }

  # Immutable tags keep what has one; this takes away what never got one.
  cleanup_policies {
    id     = "delete-untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "604800s"
    }
  }

  depends_on = [google_project_service.api]
}
