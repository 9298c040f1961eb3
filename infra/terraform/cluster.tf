resource "google_container_cluster" "canopy" {
  #checkov:skip=CKV_GCP_12:Dataplane V2 enforces network policies itself; the old Calico add-on cannot be switched on beside it
  #checkov:skip=CKV_GCP_65:groups of Google Workspace for RBAC need a domain that not every project has
  #checkov:skip=CKV_GCP_66:images come from a registry that only this project writes to; Binary Authorization wants attestors first
  #checkov:skip=CKV_GCP_69:the metadata server is set for each node pool below
  #checkov:skip=CKV_GCP_68:shielded nodes are set for each node pool below
  project             = var.project
  name                = local.name
  location            = var.zone
  deletion_protection = var.deletion_protection
  resource_labels     = local.labels

  network         = google_compute_network.canopy.id
  subnetwork      = google_compute_subnetwork.nodes.id
  networking_mode = "VPC_NATIVE"

  # Its node pools are resources of their own: changing one must not replace the cluster.
  remove_default_node_pool = true
  initial_node_count       = 1

  node_config {
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  # Cilium: the manifests' NetworkPolicies are enforced.
  datapath_provider           = "ADVANCED_DATAPATH"
  enable_intranode_visibility = true
  enable_shielded_nodes       = true

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = false
    master_ipv4_cidr_block  = "172.16.0.0/28"
  }

  # The API's address answers nobody who is not listed here.
  master_authorized_networks_config {
    gcp_public_cidrs_access_enabled = false

    dynamic "cidr_blocks" {
      for_each = var.operators
      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }

  # Its name answers whom IAM knows, from anywhere: gcloud container clusters get-credentials --dns-endpoint.
  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = true
    }
  }

  release_channel {
    channel = "REGULAR"
  }

  # Upgrades move pods; on week-ends, they interrupt fewer people.
  maintenance_policy {
    recurring_window {
      start_time = "2026-01-03T02:00:00Z"
      end_time   = "2026-01-03T14:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }
  }

  workload_identity_config {
    workload_pool = "${var.project}.svc.id.goog"
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  security_posture_config {
    mode = "BASIC"
  }

  addons_config {
    gcp_filestore_csi_driver_config {
      enabled = var.filestore
    }
  }

  logging_config {
    enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS"]
  }

  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS", "DCGM"]

    managed_prometheus {
      enabled = true
    }
  }

  dynamic "database_encryption" {
    for_each = local.kms
    content {
      state    = "ENCRYPTED"
      key_name = database_encryption.value
    }
  }

  lifecycle {
    # Of the pool that is removed at once.
    ignore_changes = [node_config, initial_node_count]
  }

  depends_on = [google_project_service.api]
}

# Training. No node is there while nothing trains: the autoscaler makes them for pods that ask for nvidia.com/gpu,
# and GKE itself taints them nvidia.com/gpu=present:NoSchedule and gives such pods the toleration.
resource "google_container_node_pool" "gpu" {
  project  = var.project
  name     = "gpu"
  cluster  = google_container_cluster.canopy.id
  location = var.zone

  initial_node_count = 0

  autoscaling {
    total_min_node_count = 0
    total_max_node_count = var.gpu_nodes_max
    location_policy      = "ANY"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type      = var.gpu_machine_type
    image_type        = "COS_CONTAINERD"
    spot              = var.gpu_spot
    disk_type         = "pd-balanced"
    disk_size_gb      = 100
    boot_disk_kms_key = one(local.kms)
    service_account   = google_service_account.nodes.email
    oauth_scopes      = ["https://www.googleapis.com/auth/cloud-platform"]
    resource_labels   = local.labels

    guest_accelerator {
      type  = var.gpu_type
      count = var.gpus_per_node

      # The default may be older than the 555 that TensorFlow's CUDA asks for, depending on the channel.
      gpu_driver_installation_config {
        gpu_driver_version = "LATEST"
      }
    }

    taint {
      key    = "nvidia.com/gpu"
      value  = "present"
      effect = "NO_SCHEDULE"
    }

    # Images start while they are still being streamed from the registry.
    gcfs_config {
      enabled = true
    }

    gvnic {
      enabled = true
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    metadata = {
      disable-legacy-endpoints = "true"
    }
  }

  lifecycle {
    # The autoscaler's business.
    ignore_changes = [initial_node_count]
  }
}

# Preprocessing, prediction and the cluster's own pods.
resource "google_container_node_pool" "cpu" {
  project  = var.project
  name     = "cpu"
  cluster  = google_container_cluster.canopy.id
  location = var.zone

  initial_node_count = 1

  autoscaling {
    total_min_node_count = 1
    total_max_node_count = var.cpu_nodes_max
    location_policy      = "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type      = var.cpu_machine_type
    image_type        = "COS_CONTAINERD"
    disk_type         = "pd-balanced"
    disk_size_gb      = 100
    boot_disk_kms_key = one(local.kms)
    service_account   = google_service_account.nodes.email
    oauth_scopes      = ["https://www.googleapis.com/auth/cloud-platform"]
    resource_labels   = local.labels

    gcfs_config {
      enabled = true
    }

    gvnic {
      enabled = true
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    metadata = {
      disable-legacy-endpoints = "true"
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }
}
