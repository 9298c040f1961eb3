variable "project" {
  description = "Google Cloud project, which must exist and have billing enabled."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "region" {
  description = "Region of bucket, registry and network."
  type        = string
  default     = "europe-west4"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like europe-west4."
  }
}

variable "zone" {
  description = "Zone of the cluster and its nodes: one, so that workers are close to each other and no traffic between zones is paid for. It must offer the GPU."
  type        = string
  default     = "europe-west4-a"

  validation {
    condition     = startswith(var.zone, "${var.region}-")
    error_message = "The zone must lie in the region."
  }
}

variable "bucket" {
  description = "Name of the bucket, unique in all of Google Cloud. Empty: PROJECT-canopy."
  type        = string
  default     = ""
}

variable "bucket_force_destroy" {
  description = "Whether terraform destroy deletes the bucket although it holds data. The value last applied counts."
  type        = bool
  default     = false
}

variable "kms_key" {
  description = "Cloud KMS key for bucket, registry, node disks and Kubernetes' secrets, in the same region; its service agents need roles/cloudkms.cryptoKeyEncrypterDecrypter. Empty: Google's own keys."
  type        = string
  default     = ""
}

variable "namespace" {
  description = "Kubernetes namespace that the manifests are applied to: pods of another one do not get to the bucket."
  type        = string
  default     = "default"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace has at most 63 lower-case letters, digits and hyphens."
  }
}

variable "operators" {
  description = "Networks that may reach the cluster's API, by name: { office = \"203.0.113.0/24\" }. Empty: none by address; use kubectl through Cloud Shell, Connect gateway or the DNS endpoint."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for cidr in values(var.operators) : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Each is a CIDR block, and none is the whole internet."
  }
}

variable "gpu_type" {
  description = "GPU of the training nodes. infra/overlays/gke selects nvidia-l4."
  type        = string
  default     = "nvidia-l4"
}

variable "gpu_machine_type" {
  description = "Machine of the training nodes, with the GPUs that it brings."
  type        = string
  default     = "g2-standard-8"
}

variable "gpus_per_node" {
  description = "GPUs that the machine type brings."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2, 4, 8], var.gpus_per_node)
    error_message = "Machines have 1, 2, 4 or 8 GPUs."
  }
}

variable "gpu_nodes_max" {
  description = "Most training nodes at a time; the least is none, and none is there while nothing trains."
  type        = number
  default     = 4

  validation {
    condition     = var.gpu_nodes_max >= 1 && floor(var.gpu_nodes_max) == var.gpu_nodes_max
    error_message = "At least one node, and a whole number."
  }
}

variable "gpu_spot" {
  description = "Whether training nodes are Spot VMs: a third of the price or less, and taken back at any time. Training goes on from its last checkpoint."
  type        = bool
  default     = true
}

variable "cpu_machine_type" {
  description = "Machine of the nodes for preprocessing and prediction."
  type        = string
  default     = "n2-standard-8"
}

variable "cpu_nodes_max" {
  description = "Most nodes for preprocessing and prediction at a time; one stays for the cluster's own pods."
  type        = number
  default     = 3

  validation {
    condition     = var.cpu_nodes_max >= 1 && floor(var.cpu_nodes_max) == var.cpu_nodes_max
    error_message = "At least one node, and a whole number."
  }
}

variable "filestore" {
  description = "Whether the cluster can make ReadWriteMany volumes (Filestore), which tuning shares its study on, by a class of the network canopy (docs/kubernetes.md)."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Whether terraform destroy refuses to delete the cluster. The value last applied counts."
  type        = bool
  default     = true
}
