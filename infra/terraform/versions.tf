terraform {
  required_version = ">= 1.9, < 2.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
  }

  # Two people who apply need one state: a bucket of its own, with versions, named at init time:
  #   terraform init -backend-config=bucket=MY-STATE-BUCKET -backend-config=prefix=canopy
  # backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region
}
