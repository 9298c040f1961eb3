# Nodes have no public addresses: Google's APIs are reached privately, everything else through Cloud NAT.
resource "google_compute_network" "canopy" {
  #checkov:skip=CKV2_GCP_18:GKE makes the firewall rules that the cluster needs; there is nothing else in this network
  project                 = var.project
  name                    = local.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.api]
}

resource "google_compute_subnetwork" "nodes" {
  project                  = var.project
  name                     = "${local.name}-nodes"
  region                   = var.region
  network                  = google_compute_network.canopy.id
  ip_cidr_range            = "10.0.0.0/22"
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.4.0.0/16"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.8.0.0/20"
  }

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_router" "canopy" {
  project = var.project
  name    = local.name
  region  = var.region
  network = google_compute_network.canopy.id
}

resource "google_compute_router_nat" "canopy" {
  project                            = var.project
  name                               = local.name
  region                             = var.region
  router                             = google_compute_router.canopy.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}
