# Each number here is a limit that the worker checks again when it starts; where two of them could contradict each
# other, a precondition beside the resource refuses the plan and says what to change.

variable "prefix" {
  description = "Start of every name: two stacks with different prefixes fit into one account and region."
  type        = string
  default     = "nightshift"

  validation {
    # 20: the longest name made from it, an IAM role with a region behind it, must stay within 64 characters.
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.prefix))
    error_message = "prefix must be 2 to 20 lower-case letters, digits and hyphens, start with a letter and not end with a hyphen."
  }
}

variable "region" {
  description = "AWS region; null is the provider's. Set or not, the provider wants one: AWS_REGION, the profile's, or a provider block where this is called as a module."
  type        = string
  default     = null
}

# tflint-ignore: terraform_unused_declarations # Its own validation is its use.
variable "allowed_account_ids" {
  description = "AWS accounts that this configuration may be planned, applied and destroyed in; [] is any. With it, credentials of another account change nothing."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.allowed_account_ids : can(regex("^[0-9]{12}$", id))])
    error_message = "allowed_account_ids must be account ids of twelve digits, as strings."
  }
  validation {
    # Here and not as a condition of the data source: of a destroy, those are warnings.
    condition     = length(var.allowed_account_ids) == 0 || contains(var.allowed_account_ids, data.aws_caller_identity.current.account_id)
    error_message = "These are credentials of account ${data.aws_caller_identity.current.account_id}, which is not one of allowed_account_ids. Nothing was changed: use the credentials of another account, or add this one."
  }
}

variable "tags" {
  description = "Tags on everything, beside Application and Stack."
  type        = map(string)
  default     = {}
}

variable "model" {
  description = <<-EOT
    The model that does the work.
    provider: anthropic, bedrock, openai (any server with an OpenAI-compatible API, by base_url), or rehearsal (a model inside the worker: no call is paid; the id says how it behaves).
    key_parameter: name of an existing SSM SecureString under the aws/ssm key; null makes a Secrets Manager secret, to be filled after the first apply.
    needs_key: false for an openai server of your own that asks for none.
    input_usd_per_mtok, output_usd_per_mtok: price of a model that is not in the worker's table.
    requests_per_minute, tokens_per_minute: the provider's limits for this account; 0 is unknown.
    structured_output: how the schema is sent: on (the provider's own way), tool (a tool that the model must use) or off (the prompt alone); null is what is usual for the model. What is stored is validated in any case.
  EOT
  type = object({
    provider            = optional(string, "anthropic")
    id                  = optional(string, "claude-haiku-5-5")
    base_url            = optional(string)
    key_parameter       = optional(string)
    needs_key           = optional(bool, true)
    input_usd_per_mtok  = optional(number)
    output_usd_per_mtok = optional(number)
    requests_per_minute = optional(number, 0)
    tokens_per_minute   = optional(number, 0)
    structured_output   = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["on", "off", "tool"], coalesce(var.model.structured_output, "on"))
    error_message = "model.structured_output must be on, off or tool, or left out for what is usual for the model."
  }
  validation {
    condition     = contains(["anthropic", "bedrock", "openai", "rehearsal"], var.model.provider)
    error_message = "model.provider must be anthropic, bedrock, openai or rehearsal."
  }
  validation {
    condition     = var.model.provider != "bedrock" || !startswith(var.model.id, "arn:") || can(regex(":(foundation-model|inference-profile)/", var.model.id))
    error_message = "model.id for bedrock must be a model, or a cross-region inference profile: an application inference profile does not say which model the worker may call."
  }
  validation {
    condition     = var.model.base_url == null || can(regex("^https?://", var.model.base_url))
    error_message = "model.base_url must start with https:// (or http://, for a server in your own network that asks for no key)."
  }
  validation {
    # On this machine alone nothing travels.
    condition     = var.model.base_url == null || !startswith(lower(coalesce(var.model.base_url, "-")), "http://") || !contains(["anthropic", "openai"], var.model.provider) || !var.model.needs_key || can(regex("^http://(127[.][0-9]+[.][0-9]+[.][0-9]+|localhost|\\[::1\\])(:[0-9]+)?(/[^@]*)?$", lower(var.model.base_url)))
    error_message = "model.base_url with http:// would send the model key in clear: use https://, or set model.needs_key = false (provider openai) where the server asks for none."
  }
  validation {
    condition     = var.model.key_parameter == null || can(regex("^/?[A-Za-z0-9_./-]+$", var.model.key_parameter))
    error_message = "model.key_parameter must be the name of an SSM parameter, not its ARN and not the key itself."
  }
  validation {
    condition     = var.model.needs_key || (var.model.provider == "openai" && var.model.base_url != null && var.model.key_parameter == null)
    error_message = "model.needs_key = false is for provider openai with a base_url of your own and no key_parameter; bedrock and rehearsal have no key in any case."
  }
  validation {
    condition     = (var.model.input_usd_per_mtok == null) == (var.model.output_usd_per_mtok == null)
    error_message = "Set both model.input_usd_per_mtok and model.output_usd_per_mtok, or neither."
  }
  validation {
    # What the worker reads as dollars (micro_usd in crates/models/src/prices.rs); anything else it refuses at its start.
    condition     = alltrue([for usd in [var.model.input_usd_per_mtok, var.model.output_usd_per_mtok] : usd == null || can(regex("^[0-9]{1,6}([.][0-9]{1,6})?$", tostring(usd)))])
    error_message = "model.input_usd_per_mtok and model.output_usd_per_mtok must be dollars from 0 to below a million, with at most six decimals."
  }
  validation {
    condition     = alltrue([for limit in [var.model.requests_per_minute, var.model.tokens_per_minute] : limit >= 0 && limit == floor(limit)])
    error_message = "model.requests_per_minute and model.tokens_per_minute must be whole numbers, 0 for unknown."
  }
}

variable "limits" {
  description = <<-EOT
    What one job may take.
    call_limit: model calls per claim; paid_call_limit: calls that were answered or may have been billed, per job over all deliveries.
    capacity_wait_s_max: how long a job may wait for a throttled or broken provider before it is a dead letter.
    spend_cap_usd_per_day: UTC day; it holds to within what is in flight.
  EOT
  type = object({
    call_timeout_s        = optional(number, 120)
    call_limit            = optional(number, 5)
    reask_limit           = optional(number, 2)
    paid_call_limit       = optional(number, 6)
    crash_limit           = optional(number, 3)
    backoff_base_ms       = optional(number, 1000)
    backoff_ms_max        = optional(number, 30000)
    hand_back_base_s      = optional(number, 30)
    hand_back_s_max       = optional(number, 900)
    capacity_wait_s_max   = optional(number, 43200)
    lease_margin_s        = optional(number, 10)
    deadline_margin_s     = optional(number, 10)
    body_bytes_max        = optional(number, 921600)
    output_bytes_max      = optional(number, 307200)
    spend_cap_usd_per_day = optional(number, 50)
  })
  default  = {}
  nullable = false

  validation {
    condition = (
      alltrue([for name, value in var.limits : value >= 1 && value == floor(value) if !contains(["reask_limit", "spend_cap_usd_per_day"], name)]) &&
      var.limits.reask_limit >= 0 && var.limits.reask_limit == floor(var.limits.reask_limit) && var.limits.spend_cap_usd_per_day > 0
    )
    error_message = "Members of limits must be whole numbers of at least 1 (reask_limit: of at least 0), and spend_cap_usd_per_day more than 0."
  }
  validation {
    condition     = can(regex("^-?[0-9]{1,6}([.][0-9]{1,6})?$", tostring(var.limits.spend_cap_usd_per_day))) # As the worker reads dollars.
    error_message = "limits.spend_cap_usd_per_day must be below a million dollars, with at most six decimals."
  }
  validation {
    condition     = var.limits.backoff_base_ms <= var.limits.backoff_ms_max && var.limits.hand_back_base_s <= var.limits.hand_back_s_max
    error_message = "In limits, backoff_base_ms must not exceed backoff_ms_max, nor hand_back_base_s hand_back_s_max."
  }
  validation {
    condition     = var.limits.hand_back_s_max <= 39600
    error_message = "limits.hand_back_s_max must be at most 39600: SQS hides a message no longer than 12 hours from its receipt, and some of that is spent before the hand-back."
  }
  validation {
    condition     = var.limits.reask_limit < var.limits.paid_call_limit
    error_message = "limits.paid_call_limit must exceed limits.reask_limit: a re-ask is a paid call after the first."
  }
  validation {
    condition     = var.limits.body_bytes_max <= 921600
    error_message = "limits.body_bytes_max must be at most 921600: SQS holds 1 MiB, the attributes of a dead letter included."
  }
  validation {
    condition     = var.limits.output_bytes_max <= 358400
    error_message = "limits.output_bytes_max must be at most 358400: a DynamoDB item ends at 400 KB, and the record needs room beside the output."
  }
}

variable "queues" {
  description = "The queues and how the worker takes from them."
  type = object({
    visibility_timeout_s       = optional(number, 1800)
    retention_days             = optional(number, 7)
    dead_letter_retention_days = optional(number, 14)
    max_receive_count          = optional(number, 100)
    batch_size                 = optional(number, 10)
    batch_window_s             = optional(number, 0)
    maximum_concurrency        = optional(number, 10)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.queues.visibility_timeout_s >= 30 && var.queues.visibility_timeout_s <= 43200
    error_message = "queues.visibility_timeout_s must be 30 to 43200 (SQS's 12 hours)."
  }
  validation {
    condition     = alltrue([for days in [var.queues.retention_days, var.queues.dead_letter_retention_days] : days >= 1 && days <= 14])
    error_message = "Retentions in queues must be 1 to 14 days (SQS's limit)."
  }
  validation {
    condition     = var.queues.max_receive_count >= 1 && var.queues.max_receive_count <= 1000
    error_message = "queues.max_receive_count must be 1 to 1000 (SQS's limit)."
  }
  validation {
    condition     = var.queues.batch_size >= 1 && var.queues.batch_size <= 10000 && var.queues.batch_window_s >= 0 && var.queues.batch_window_s <= 300
    error_message = "queues.batch_size must be 1 to 10000, queues.batch_window_s 0 to 300 (Lambda's limits)."
  }
  validation {
    condition     = var.queues.maximum_concurrency >= 2 && var.queues.maximum_concurrency <= 1000
    error_message = "queues.maximum_concurrency must be 2 to 1000 (Lambda's limits)."
  }
}

variable "senders" {
  description = <<-EOT
    Who may send jobs besides those of this account whose own policies allow it (output policies, producer), by a name of your own; the key of the stack admits them too.
    principals: ARNs of roles, users or accounts, of other accounts as well; their own policies have to allow it, too.
    service: instead, an AWS service: events.amazonaws.com (EventBridge), sns.amazonaws.com, s3.amazonaws.com; with source_arns, which of its rules, topics or buckets (* and ? are understood), and source_accounts, whose ([]: this account's).
    What is sent has to be a job: from EventBridge by an input transformer, from SNS with raw message delivery. A notification of S3 is none and becomes a dead letter: send it by EventBridge.
  EOT
  type = map(object({
    principals      = optional(set(string), [])
    service         = optional(string)
    source_arns     = optional(set(string), [])
    source_accounts = optional(set(string), [])
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.senders) : can(regex("^[A-Za-z0-9]{1,50}$", name))])
    error_message = "Names in senders must be 1 to 50 letters and digits: they become names of statements."
  }
  validation {
    condition     = length(var.senders) <= 19 && length(flatten([for sender in values(var.senders) : tolist(sender.principals)])) <= 48
    error_message = "senders must be at most 19, with at most 48 principals in all: a queue's policy holds 20 statements and 50 principals. An account stands for all of its roles."
  }
  validation {
    condition     = alltrue([for sender in values(var.senders) : (length(sender.principals) > 0) != (sender.service != null)])
    error_message = "Each of senders needs either principals or a service."
  }
  validation {
    condition     = alltrue(flatten([for sender in values(var.senders) : [for arn in sender.principals : can(regex("^arn:[a-z-]+:(iam|sts)::[0-9]{12}:(root|role/|user/|assumed-role/)", arn))]]))
    error_message = "Principals in senders must be ARNs of IAM: arn:aws:iam::123456789012:role/name, or :root for all of an account. Everybody (*) is not accepted."
  }
  validation {
    condition     = alltrue([for sender in values(var.senders) : sender.service == null ? length(sender.source_arns) + length(sender.source_accounts) == 0 : can(regex("^[a-z0-9.-]+[.]amazonaws[.]com$", sender.service)) && length(sender.source_arns) > 0 && alltrue([for arn in sender.source_arns : startswith(arn, "arn:")])])
    error_message = "A service in senders must be a service principal such as events.amazonaws.com, and source_arns must say which of its rules, topics or buckets may send; principals take neither source_arns nor source_accounts."
  }
  validation {
    condition     = alltrue(flatten([for sender in values(var.senders) : [for id in sender.source_accounts : can(regex("^[0-9]{12}$", id))]]))
    error_message = "source_accounts in senders must be account ids of twelve digits, as strings."
  }
}

variable "worker" {
  description = <<-EOT
    The worker function.
    reserved_concurrency: null reserves none (a new account may have ten executions in all); where it is set, account_concurrency must say what the account has.
    account_concurrency: the account's executions in all (aws lambda get-account-settings), where the plan should see that queues.maximum_concurrency leaves some.
    log_class: STANDARD, or INFREQUENT_ACCESS at half the price, which costs two things: FilterLogEvents, which the runbook reads logs with, is refused there (runbook/README.md says what to do instead), and the numbers of an invocation whose PutMetricData failed are lost, because no metrics are made of its log lines. Another class is another log group: what is logged so far goes. Set it before the first apply.
  EOT
  type = object({
    timeout_s            = optional(number, 300)
    memory_mb            = optional(number, 256)
    architecture         = optional(string, "arm64")
    reserved_concurrency = optional(number)
    account_concurrency  = optional(number)
    log_retention_days   = optional(number, 30)
    log_class            = optional(string, "STANDARD")
    log_level            = optional(string, "info")
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.worker.timeout_s >= 30 && var.worker.timeout_s <= 900
    error_message = "worker.timeout_s must be 30 to 900 (Lambda's limit)."
  }
  validation {
    condition     = var.worker.memory_mb >= 128 && var.worker.memory_mb <= 10240
    error_message = "worker.memory_mb must be 128 to 10240 (Lambda's limits)."
  }
  validation {
    condition     = contains(["arm64", "x86_64"], var.worker.architecture)
    error_message = "worker.architecture must be arm64 or x86_64, the one that scripts/build was run for."
  }
  validation {
    condition     = contains(["error", "warn", "info", "debug", "trace"], var.worker.log_level)
    error_message = "worker.log_level must be error, warn, info, debug or trace."
  }
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.worker.log_retention_days)
    error_message = "worker.log_retention_days must be one of CloudWatch's: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
  validation {
    condition     = contains(["STANDARD", "INFREQUENT_ACCESS"], var.worker.log_class)
    error_message = "worker.log_class must be STANDARD or INFREQUENT_ACCESS; in DELIVERY nobody could read a log after a day."
  }
}

variable "iam" {
  description = <<-EOT
    What an organisation asks of IAM.
    path: of the roles and the managed policies, with a slash at both ends. Another path is another role: set it before the first apply.
    permissions_boundary: ARN of the policy that bounds every role of the stack.
  EOT
  type = object({
    path                 = optional(string, "/")
    permissions_boundary = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^/([!-~]+/)?$", var.iam.path)) && length(var.iam.path) <= 512
    error_message = "iam.path must begin and end with a slash, as in /teams/a/, and have at most 512 characters."
  }
  validation {
    condition     = var.iam.permissions_boundary == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.iam.permissions_boundary))
    error_message = "iam.permissions_boundary must be the ARN of a managed policy."
  }
}

variable "network" {
  description = <<-EOT
    The functions inside a VPC, which a model server of your own may need: subnet_ids and security_group_ids.
    From there they still have to reach SQS, DynamoDB, CloudWatch (monitoring), Lambda (the sentinel pauses, probes and drives redrives by it), Secrets Manager or SSM, and the provider: by a NAT gateway, or by VPC endpoints. null: not in a VPC.
  EOT
  type = object({
    subnet_ids         = set(string)
    security_group_ids = set(string)
  })
  default = null

  validation {
    condition     = var.network == null ? true : length(var.network.subnet_ids) > 0 && length(var.network.security_group_ids) > 0
    error_message = "network needs at least one subnet and one security group."
  }
}

variable "notify" {
  description = <<-EOT
    Who is told besides the mail addresses, by severity.
    https: endpoints that SNS posts to, such as PagerDuty's or Opsgenie's for CloudWatch; they confirm by themselves. Such an address is a secret of its own, and stands in the state.
    actions: ARNs of further alarm actions (another topic, an SSM incident), up to four a severity.
  EOT
  type = object({
    page   = optional(object({ https = optional(set(string), []), actions = optional(set(string), []) }), {})
    ticket = optional(object({ https = optional(set(string), []), actions = optional(set(string), []) }), {})
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for to in values(var.notify) : alltrue([for address in to.https : startswith(address, "https://")]) && alltrue([for arn in to.actions : startswith(arn, "arn:")])])
    error_message = "notify: https must be addresses that start with https://, and actions ARNs."
  }
  validation {
    condition     = alltrue([for to in values(var.notify) : length(to.actions) <= 4])
    error_message = "notify: at most four actions a severity; CloudWatch takes five, and the stack's own topic is one."
  }
}

variable "ledger" {
  description = <<-EOT
    The table of results and failures.
    table_name: another table than <prefix>-ledger: one that was restored (runbook/procedures/restore-the-ledger.md).
    stream: switches on a DynamoDB stream (new images), for a reader of your own; `events` needs none.
  EOT
  type = object({
    table_name          = optional(string)
    result_expiry_days  = optional(number, 90)
    failure_expiry_days = optional(number, 30)
    stream              = optional(bool, false)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for days in [var.ledger.result_expiry_days, var.ledger.failure_expiry_days] : days >= 1 && days == floor(days)])
    error_message = "Expiries in ledger must be whole days, at least 1."
  }
}

variable "events" {
  description = "true sends an event for each result, review and dead letter to the EventBridge bus <prefix>-results (terraform/events.schema.json), by two pipes from the table's stream, which then has both images. DynamoDB lets two read a stream at once: these are the two, and further consumers are rules on the bus. The apply that makes the pipes waits two minutes for their stream. Before it is switched off, the rules on the bus have to go, and the policy consumer to be detached (runbook/procedures/destroy-and-recreate.md). Switched on or off, a stream that `ledger.stream` made is made anew, with another ARN."
  type        = bool
  default     = false
}

variable "protect_data" {
  description = "Nothing is destroyed or replaced with its queues, the ledger has deletion protection and point-in-time recovery, and the secret 30 days to be recovered. false is the one step before `terraform destroy`: runbook/procedures/destroy-and-recreate.md."
  type        = bool
  default     = true
}

variable "customer_key" {
  description = "true encrypts queues, ledger, topics, logs and secret under a KMS key of this stack, for 1 USD a month and its requests; false uses the keys that AWS owns. Off again only with keep_customer_key: what was written under the key, waiting jobs and dead letters included, can be read only with it."
  type        = bool
  default     = false
}

variable "customer_key_arn" {
  description = "ARN of an existing key of this account and region to be used instead of one of this stack's own, with customer_key = true. Its policy is yours: the output key_statements says what it has to allow. From a key of the stack's own to this one and back: runbook/procedures/customer-key.md."
  type        = string
  default     = null

  validation {
    condition     = var.customer_key_arn == null || (can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.customer_key_arn)) && try(split(":", var.customer_key_arn)[3], "") == local.region)
    error_message = "customer_key_arn must be the ARN of a key (not of an alias) in the stack's region."
  }
  validation {
    # Of another account, a key's policy is not enough: each role would have to allow it too, and none speaks of KMS.
    condition     = try(split(":", var.customer_key_arn)[4], local.account) == local.account
    error_message = "customer_key_arn must be a key of the stack's own account, ${local.account}: roles of the stack may not use another account's."
  }
  validation {
    condition     = var.customer_key_arn == null || var.customer_key
    error_message = "customer_key_arn is used with customer_key = true alone: set it too, or leave customer_key_arn out."
  }
}

variable "keep_customer_key" {
  description = "true keeps the key after customer_key was set to false, until nothing needs it any more; then false deletes it: runbook/procedures/customer-key.md."
  type        = bool
  default     = false
}

variable "artifacts_dir" {
  description = "Where scripts/build puts the zips, as <architecture>/worker.zip; null is target/zips of the repository that this module is in."
  type        = string
  default     = null
}

variable "worker_package" {
  description = <<-EOT
    The worker's zip in a bucket of the stack's region, instead of the one in artifacts_dir: for those who build once and deploy often.
    sha256_base64: as scripts/build prints it. It decides whether there is something to deploy, and a zip that is another one goes no further than a version that works on nothing.
    version: of a versioned bucket; null takes the newest.
  EOT
  type = object({
    bucket        = string
    key           = string
    version       = optional(string)
    sha256_base64 = string
  })
  default = null

  validation {
    condition     = var.worker_package == null ? true : can(regex("^[A-Za-z0-9+/]{43}=$", var.worker_package.sha256_base64))
    error_message = "worker_package.sha256_base64 must be a SHA-256 in Base64 (44 characters), as scripts/build prints it."
  }
}

variable "redrive_package" {
  description = "The redrive's zip in a bucket, instead of the one in artifacts_dir; as worker_package, and best of the same build."
  type = object({
    bucket        = string
    key           = string
    version       = optional(string)
    sha256_base64 = string
  })
  default = null

  validation {
    condition     = var.redrive_package == null ? true : can(regex("^[A-Za-z0-9+/]{43}=$", var.redrive_package.sha256_base64))
    error_message = "redrive_package.sha256_base64 must be a SHA-256 in Base64 (44 characters), as scripts/build prints it."
  }
}

variable "sentinel_package" {
  description = "The sentinel's zip in a bucket, instead of the one in artifacts_dir; as worker_package, and best of the same build."
  type = object({
    bucket        = string
    key           = string
    version       = optional(string)
    sha256_base64 = string
  })
  default = null

  validation {
    condition     = var.sentinel_package == null ? true : can(regex("^[A-Za-z0-9+/]{43}=$", var.sentinel_package.sha256_base64))
    error_message = "sentinel_package.sha256_base64 must be a SHA-256 in Base64 (44 characters), as scripts/build prints it."
  }
}

variable "page_emails" {
  description = "Addresses that are told when a person is needed now. Each has to confirm once, by mail."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.page_emails : can(regex("^[^@\\s]+@[^@\\s]+$", address))])
    error_message = "page_emails must be mail addresses."
  }
}

variable "ticket_emails" {
  description = "Addresses that are told what can wait for the morning."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.ticket_emails : can(regex("^[^@\\s]+@[^@\\s]+$", address))])
    error_message = "ticket_emails must be mail addresses."
  }
}

variable "success_objective_percent" {
  description = "Share of jobs that should end as a result. What is left is the error budget of the success-burning alarms."
  type        = number
  default     = 99

  validation {
    # Below 94 the fast alarm would need more than 86 % failures, and at 93 more than 100 %.
    condition     = var.success_objective_percent >= 94 && var.success_objective_percent <= 99.99
    error_message = "success_objective_percent must be 94 to 99.99."
  }
}

variable "alarm_thresholds" {
  description = "Other thresholds than alarms.tf has, by alarm, in its unit: { oldest-job-too-old = 7200 }."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for page in keys(var.alarm_thresholds) : contains([for name, alarm in local.alarms : name if !can(alarm.children)], page)])
    error_message = "alarm_thresholds must name alarms of alarms.tf that have one threshold; those of success-burning-* follow from success_objective_percent."
  }
}

variable "jobs_expected" {
  description = "When jobs are expected, in UTC: the alarm no-jobs is raised after within_hours without one. null: never."
  type = object({
    from_hour     = number
    to_hour       = number
    weekdays_only = optional(bool, true)
    within_hours  = optional(number, 2)
  })
  default = null

  validation {
    condition = var.jobs_expected == null ? true : (
      var.jobs_expected.from_hour >= 0 && var.jobs_expected.to_hour <= 24 && var.jobs_expected.within_hours >= 1 &&
      var.jobs_expected.to_hour - var.jobs_expected.from_hour >= var.jobs_expected.within_hours
    )
    error_message = "jobs_expected: from_hour and to_hour are hours of one UTC day (0 to 24), at least within_hours (1 or more) apart."
  }
}

variable "runbook_url" {
  description = "Where the folder runbook/ can be read, such as https://github.com/you/nightshift/blob/main/runbook: alarms link to their page below it. Null: they name the page."
  type        = string
  default     = null
}
