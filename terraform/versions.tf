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

# No provider block, so that this folder is both: a root module that is applied as it is, with the provider that Terraform
# makes of AWS_REGION and the profile, and a child module that somebody else's configuration calls, with for_each and
# providers of its own. ("Providers Within Modules") Region and tags therefore stand on each resource.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {
  region = var.region
}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region

  # IAM names and dashboards are one namespace for all regions of an account, so theirs carry the region:
  # the same prefix can then be used in a second region.
  global_suffix = local.region

  tags = merge(var.tags, { Application = "nightshift", Stack = var.prefix })
}
