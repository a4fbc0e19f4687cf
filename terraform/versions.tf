terraform {
  # 1.9: a variable's validation may look at other objects of the module.
  required_version = ">= 1.9"

  required_providers {
    # This version and no other: it is the one whose schema the checks know, and without a lock file, which can only be made
    # where the provider's registry can be reached, a range would be another provider on another day.
    aws = {
      source  = "hashicorp/aws"
      version = "6.66.0"
    }
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = length(var.allowed_account_ids) > 0 ? var.allowed_account_ids : null

  default_tags {
    tags = merge(var.tags, { Application = "nightshift", Stack = var.prefix })
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region

  # IAM names and dashboards are one namespace for all regions of an account, so theirs carry the region:
  # the same prefix can then be used in a second region.
  global_suffix = local.region
}
