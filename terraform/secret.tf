# The model key. Terraform makes the place for it and neither sets nor sees the value, so that it is in no state, plan
# or argument list: runbook/procedures/rotate-the-key.md writes it.

locals {
  model_has_key  = contains(["anthropic", "openai"], var.model.provider) && var.model.needs_key
  model_key_here = local.model_has_key && var.model.key_parameter == null

  model_key_parameter_arn = var.model.key_parameter == null ? null : "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter/${trimprefix(var.model.key_parameter, "/")}"
}

resource "aws_secretsmanager_secret" "model_key" {
  # checkov:skip=CKV2_AWS_57:Providers' keys are issued in their consoles; no function could rotate them. A page does.
  count = local.model_key_here ? 1 : 0

  region = var.region
  tags   = local.tags

  name        = "${var.prefix}-model-key"
  description = "API key of ${var.model.provider}, plain text"
  kms_key_id  = local.key_arn

  # 0 deletes at once and frees the name; with a recovery window the name stays taken until it ends.
  recovery_window_in_days = var.protect_data ? 30 : 0
}
