# Models whose price the worker knows (crates/models, with the pricing pages); the rehearsal model costs nothing.
# A test compares this list with the worker's. Any other model needs its price in var.model.

locals {
  priced_models = [
    "claude-haiku-4-5",
    "claude-opus-4-5",
    "claude-sonnet-4-5",
  ]

  model_price_known = (
    var.model.provider == "rehearsal" ||
    var.model.input_usd_per_mtok != null ||
    contains(local.priced_models, var.model.id)
  )
}
