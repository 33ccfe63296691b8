variable "name" {
  description = "What everything here is called"
  type        = string
  default     = "stockade"
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  description = "Public subnets, one for each zone; each has one bastion"
  type        = list(string)
}

variable "clients" {
  description = "Networks that may reach the bastion"
  type        = list(string)

  validation {
    condition     = length(var.clients) > 0
    error_message = "Name at least one network: [\"0.0.0.0/0\"] is everybody."
  }
}

variable "users" {
  description = "IAM users, each with a role of their own; leave it empty where `stockade access` makes the roles"
  type        = set(string)
  default     = []
}

variable "user_policy_arns" {
  description = "What users' roles may do"
  type        = set(string)
  default     = ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
}

variable "boundary_arn" {
  description = "The most that a user's role may ever do"
  type        = string
  default     = null
}

variable "package_url" {
  description = "The Debian package, as aws s3 cp takes it"
  type        = string
}

variable "image_url" {
  description = "A tar archive of the jail's OCI layout, as aws s3 cp takes it"
  type        = string
}

variable "artifacts_arn" {
  description = "What the instances may read of S3: arn:aws:s3:::BUCKET/PREFIX/*"
  type        = string
}

variable "configuration" {
  description = "The file stockade.toml"
  type        = string
  default     = "stockade.toml"
}

variable "policy" {
  description = "What `stockade doctor --print-iam=bastion` printed"
  type        = string
  default     = "bastion.json"
}

variable "instance_type" {
  type    = string
  default = "m7i.large"
}

variable "recordings_size" {
  description = "GiB for recordings, audit trail and homes, of each bastion"
  type        = number
  default     = 200
}

variable "drain" {
  description = "Seconds that connections live on when an instance goes"
  type        = number
  default     = 3600
}
