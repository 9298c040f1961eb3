# What pods may do: read and write one bucket, and nothing else. No key is made: Kubernetes' ServiceAccounts
# stand for this account (Workload Identity).
resource "google_service_account" "pods" {
  project      = var.project
  account_id   = local.name
  display_name = "Canopy's pods"

  depends_on = [google_project_service.api]
}

resource "google_storage_bucket_iam_member" "pods" {
  bucket = google_storage_bucket.data.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pods.member
}

# TensorFlow asks for the bucket itself (storage.buckets.get) before it makes a folder in it, which a role for
# objects does not allow: a run into an empty bucket may end with 403.
resource "google_storage_bucket_iam_member" "pods_bucket" {
  bucket = google_storage_bucket.data.name
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.pods.member
}

# The ServiceAccounts of k8s/*.yaml.
locals {
  service_accounts = toset([
    "canopy-evaluate",
    "canopy-predict",
    "canopy-preprocess",
    "canopy-tensorboard",
    "canopy-train",
    "canopy-tune",
  ])
}

resource "google_service_account_iam_member" "workload_identity" {
  for_each = local.service_accounts

  service_account_id = google_service_account.pods.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.namespace}/${each.value}]"

  # The pool of identities comes with the cluster.
  depends_on = [google_container_cluster.canopy]
}

# What nodes may do: write logs and metrics, and pull images, streamed.
resource "google_service_account" "nodes" {
  project      = var.project
  account_id   = "${local.name}-nodes"
  display_name = "Nodes of Canopy's cluster"

  depends_on = [google_project_service.api]
}

resource "google_project_iam_member" "nodes" {
  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

# Image streaming (gcfs_config) is a service that nodes call; without this they wait for the whole image, and nothing
# says so.
resource "google_project_iam_member" "nodes_streaming" {
  project = var.project
  role    = "roles/serviceusage.serviceUsageConsumer"
  member  = google_service_account.nodes.member
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  project    = var.project
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}
