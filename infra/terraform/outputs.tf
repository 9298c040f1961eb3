output "bucket" {
  description = "BUCKET in infra/overlays/gke."
  value       = google_storage_bucket.data.name
}

output "registry" {
  description = "Where images are pushed, and pulled from: the newName of infra/overlays/gke, without the image's name."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "service_account" {
  description = "The account that infra/overlays/gke annotates the ServiceAccounts with."
  value       = google_service_account.pods.email
}

output "credentials" {
  description = "Makes kubectl and infra.submit talk to the cluster."
  value       = "gcloud container clusters get-credentials ${google_container_cluster.canopy.name} --zone ${var.zone} --project ${var.project} --dns-endpoint"
}

output "push" {
  description = "Builds and pushes the images."
  value = join("\n", [
    "gcloud auth configure-docker ${var.region}-docker.pkg.dev",
    "docker build --platform linux/amd64 -f infra/Dockerfile --target cpu -t ${var.region}-docker.pkg.dev/${var.project}/canopy/canopy:0.1.0 .",
    "docker build --platform linux/amd64 -f infra/Dockerfile --target gpu -t ${var.region}-docker.pkg.dev/${var.project}/canopy/canopy:0.1.0-gpu .",
    "docker push --all-tags ${var.region}-docker.pkg.dev/${var.project}/canopy/canopy",
  ])
}

output "overlay" {
  description = "Fills in the placeholders of infra/overlays/gke; run in the repository's root."
  value       = "sed -i.bak 's/PROJECT/${var.project}/g; s/BUCKET/${google_storage_bucket.data.name}/g; s/REGION/${var.region}/g' infra/overlays/gke/kustomization.yaml"
}
