# Canopy on Google Cloud: a cluster whose GPU nodes come and go, a bucket, a registry, and rights without keys.
#
# First:  gcloud services enable cloudresourcemanager.googleapis.com serviceusage.googleapis.com --project my-project
#         (through these two Terraform looks at the project, so it cannot enable them itself)
# Plan:   terraform init && terraform plan -var project=my-project
# Apply:  terraform apply -var project=my-project -var 'operators={office="203.0.113.0/24"}'
# Use:    terraform output         (the commands that come next, and what infra/overlays/gke wants to know)
# Clean:  terraform destroy -var project=my-project
#         (first apply with deletion_protection=false, and with bucket_force_destroy=true unless the bucket is empty,
#         earlier versions of its objects included: destroy goes by what was applied, whatever it is given)

locals {
  name   = "canopy"
  bucket = var.bucket != "" ? var.bucket : "${var.project}-canopy"
  kms    = var.kms_key != "" ? [var.kms_key] : []
  labels = { app = "canopy" }
  apis = [
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "containerfilesystem.googleapis.com",
    "file.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "storage.googleapis.com",
  ]
}

resource "google_project_service" "api" {
  for_each = toset(local.apis)

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}
