# The rules of tflint's bundled Terraform plugin. The AWS plugin comes from GitHub and checks enums and formats; it is
# left out so that the check needs no network.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# Written for people: files are grouped by purpose and not by main.tf, variables.tf, outputs.tf alone.
rule "terraform_standard_module_structure" {
  enabled = false
}
