# An example, not applied by this project: see README.md.
terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_caller_identity" "own" {}
data "aws_partition" "own" {}

data "aws_ami" "debian" {
  most_recent = true
  owners      = ["136693071363"] # Debian's own account
  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

# ---- who the bastion is, and what it may -----------------------------------------------------------------------------

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "bastion" {
  name               = var.name
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

# stockade's own words about its own configuration; nothing more.
resource "aws_iam_role_policy" "bastion" {
  name   = "bastion"
  role   = aws_iam_role.bastion.id
  policy = file(var.policy)
}

data "aws_iam_policy_document" "artifacts" {
  statement {
    sid       = "Artifacts"
    actions   = ["s3:GetObject"]
    resources = [var.artifacts_arn]
  }
  statement {
    sid       = "HostKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.host_key.arn]
  }
}

resource "aws_iam_role_policy" "artifacts" {
  name   = "artifacts"
  role   = aws_iam_role.bastion.id
  policy = data.aws_iam_policy_document.artifacts.json
}

# The instances' own SSH is nobody's.
resource "aws_iam_role_policy_attachment" "ssm" {
  role       = aws_iam_role.bastion.name
  policy_arn = "arn:${data.aws_partition.own.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "bastion" {
  name = var.name
  role = aws_iam_role.bastion.name
}

# ---- users' roles: the bastion alone, in the user's name alone -------------------------------------------------------

data "aws_iam_policy_document" "user_trust" {
  for_each = var.users
  statement {
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.bastion.arn]
    }
    condition {
      test     = "StringEquals"
      variable = "sts:SourceIdentity"
      values   = [each.key]
    }
  }
}

resource "aws_iam_role" "user" {
  for_each             = var.users
  name                 = each.key
  path                 = "/bastion/"
  assume_role_policy   = data.aws_iam_policy_document.user_trust[each.key].json
  permissions_boundary = var.boundary_arn
}

# Clusters know this one, whose keys never leave the bastion, and which has no right at all.
resource "aws_iam_role" "user_kube" {
  for_each             = var.users
  name                 = "${each.key}-kube"
  path                 = "/bastion/"
  assume_role_policy   = data.aws_iam_policy_document.user_trust[each.key].json
  permissions_boundary = var.boundary_arn
}

resource "aws_iam_role_policy_attachment" "user" {
  for_each   = { for pair in setproduct(var.users, var.user_policy_arns) : join(" ", pair) => pair }
  role       = aws_iam_role.user[each.value[0]].name
  policy_arn = each.value[1]
}

# ---- the network -----------------------------------------------------------------------------------------------------

resource "aws_security_group" "bastion" {
  name        = var.name
  description = "People come in by SSH; jails go out by the doors alone"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each          = toset(var.clients)
  security_group_id = aws_security_group.bastion.id
  cidr_ipv4         = each.value
  from_port         = 22
  to_port           = 22
  ip_protocol       = "tcp"
}

# The load balancer's health checks come from within the subnets.
data "aws_subnet" "each" {
  for_each = toset(var.subnet_ids)
  id       = each.value
}

resource "aws_vpc_security_group_ingress_rule" "health" {
  for_each          = data.aws_subnet.each
  security_group_id = aws_security_group.bastion.id
  cidr_ipv4         = each.value.cidr_block
  from_port         = 22
  to_port           = 22
  ip_protocol       = "tcp"
}

# 443: AWS's endpoints, API servers, and what [egress] names: narrow it to those. 80: Debian's packages, at first.
resource "aws_vpc_security_group_egress_rule" "web" {
  for_each          = toset(["80", "443"])
  security_group_id = aws_security_group.bastion.id
  cidr_ipv4         = "0.0.0.0/0"
  from_port         = tonumber(each.value)
  to_port           = tonumber(each.value)
  ip_protocol       = "tcp"
}

resource "aws_lb" "bastion" {
  name                             = var.name
  load_balancer_type               = "network"
  subnets                          = var.subnet_ids
  enable_cross_zone_load_balancing = true
}

resource "aws_lb_target_group" "ssh" {
  name                 = var.name
  vpc_id               = var.vpc_id
  port                 = 22
  protocol             = "TCP"
  preserve_client_ip   = true # shares, penalties and from= are by source
  deregistration_delay = var.drain
  stickiness {
    type    = "source_ip"
    enabled = true
  }
  health_check {
    protocol = "TCP"
    interval = 30
  }
}

resource "aws_lb_listener" "ssh" {
  load_balancer_arn = aws_lb.bastion.arn
  port              = 22
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.ssh.arn
  }
}

# ---- the bastions ----------------------------------------------------------------------------------------------------

# Its value is put there by hand; Terraform's state must not have it.
resource "aws_secretsmanager_secret" "host_key" {
  name = "${var.name}/host_ed25519"
}

resource "aws_instance" "bastion" {
  for_each                    = data.aws_subnet.each
  ami                         = data.aws_ami.debian.id
  instance_type               = var.instance_type
  subnet_id                   = each.value.id
  vpc_security_group_ids      = [aws_security_group.bastion.id]
  iam_instance_profile        = aws_iam_instance_profile.bastion.name
  user_data_replace_on_change = true
  user_data = templatefile("${path.module}/bastion.sh.tftpl", {
    package       = var.package_url
    image         = var.image_url
    host_key      = aws_secretsmanager_secret.host_key.id
    configuration = file(var.configuration)
  })
  # A jail has a network of its own without a way there; one hop is for the bastion alone.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  root_block_device {
    encrypted   = true
    volume_type = "gp3"
  }
  lifecycle {
    ignore_changes = [ami]
  }
  tags = { Name = var.name }
}

resource "aws_ebs_volume" "state" {
  for_each          = data.aws_subnet.each
  availability_zone = each.value.availability_zone
  size              = var.recordings_size
  type              = "gp3"
  encrypted         = true
  tags              = { Name = "${var.name}-state" }
  lifecycle {
    prevent_destroy = true # evidence
  }
}

resource "aws_volume_attachment" "state" {
  for_each    = data.aws_subnet.each
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.state[each.key].id
  instance_id = aws_instance.bastion[each.key].id
}

resource "aws_lb_target_group_attachment" "ssh" {
  for_each         = data.aws_subnet.each
  target_group_arn = aws_lb_target_group.ssh.arn
  target_id        = aws_instance.bastion[each.key].id
  port             = 22
}

output "address" {
  description = "Where people ssh to"
  value       = aws_lb.bastion.dns_name
}

output "bastion_role" {
  description = "For `bastion` of [rbac], and for trust policies elsewhere"
  value       = aws_iam_role.bastion.arn
}
