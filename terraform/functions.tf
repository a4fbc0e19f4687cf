# What every function has.

locals {
  # Where this folder is the root, path.module is `.`: the same zip under another name would be a change of each stack.
  artifacts_dir = coalesce(var.artifacts_dir, trimprefix("${path.module}/../target/zips", "./"))

  function_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } } # Not for somebody else's function.
    }]
  })

  # Lambda drops what is below it, by default all below INFO. Never above: a function leaves out what log_level says, and a
  # line of metrics has no level, for which Lambda takes INFO. ("Using log-level filtering")
  function_log_level = contains(["debug", "trace"], var.worker.log_level) ? upper(var.worker.log_level) : "INFO"
}
