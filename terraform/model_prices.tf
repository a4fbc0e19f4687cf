# Whether the worker knows what the model costs: it reads the same file, and its spend cap is only as true as that.

locals {
  prices = jsondecode(file("${path.module}/../crates/models/src/prices.json")).prices

  # A Bedrock id or ARN, without ARN and region: [vendor].[model]-[date]-v1:0
  bedrock_profile_regions = "(apac|ap|au|ca|eu|global|jp|sa|uk|us-gov|us)"
  bedrock_name            = reverse(split("/", var.model.id))[0]
  bedrock_profile         = can(regex("^${local.bedrock_profile_regions}\\.", local.bedrock_name))
  bedrock_model           = replace(local.bedrock_name, "/^${local.bedrock_profile_regions}\\./", "")

  # Dates and versions at the end of an id do not change the price.
  model_date    = "/-([0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}|latest)$/"
  model_plain   = replace(replace(replace(local.bedrock_model, "/:.*$/", ""), "/-v[0-9]+$/", ""), local.model_date, "")
  model_spoken  = [var.model.id, replace(var.model.id, local.model_date, "")]
  bedrock_parts = split(".", local.model_plain)

  priced_models = flatten([for source in local.prices : [for model in keys(source.models) : "${source.provider} ${model}"]])

  model_price_known = (
    var.model.input_usd_per_mtok != null ||
    var.model.provider == "rehearsal" ||
    length(setintersection(local.priced_models, var.model.provider != "bedrock" ? [for id in local.model_spoken : "${var.model.provider} ${id}"] : [
      "bedrock ${local.model_plain}",
      "${local.bedrock_parts[0]} ${join(".", slice(local.bedrock_parts, 1, length(local.bedrock_parts)))}",
    ])) > 0
  )
}
