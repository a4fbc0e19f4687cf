"""Starts MiniStack on the one address that it is given.

With USE_SSL it would also take port 443 where it may; nothing of ours needs that.
"""

from ministack import app
from ministack.core import iam_actions
from ministack.services import dynamodb

app._port_is_bindable = lambda host, port: False

lambda_action = iam_actions._lambda_action


def action(method, path):
    """MiniStack asks for the right to list where one alias or one event source mapping is read. A mapping has no ARN there: as for
    its update, no right is asked for."""
    parts = [part for part in path.split("/") if part]
    if method == "GET" and parts[-2:-1] == ["aliases"]:
        return "GetAlias"
    if method == "GET" and parts[-2:-1] == ["event-source-mappings"]:
        return None
    return lambda_action(method, path)


iam_actions._lambda_action = action

encryption = dynamodb._sse_description_from_spec
# DynamoDB describes no encryption under the key that it owns; MiniStack names one of the account.
dynamodb._sse_description_from_spec = lambda spec: encryption(spec) if spec and spec.get("Enabled") else None

if __name__ == "__main__":
    app.main()
