"""What schemathesis cannot know.

How a webhook is signed, what there is in the store, and that a pause ends in the future.
"""

import hashlib
import hmac
import itertools
import json
import os
import re

import requests
import schemathesis

SECRET = os.environ["OPENAPI_WEBHOOK_SECRET"].encode()
KEY = os.environ["OPENAPI_ADMIN_KEY"]
# Names of what the store was given, by parameter of a path.
KNOWN = json.loads(os.environ["OPENAPI_KNOWN"])
ACCEPTS = itertools.cycle(
    ["application/json", "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0", "*/*"]
)
TIME = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?"
    r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.IGNORECASE,
)
FORM = json.dumps({
    "action": "waiting",
    "workflow_job": {"id": 4716, "labels": ["code-linux"]},
    "repository": {"full_name": "acme/app"},
    "organization": {"login": "acme"},
})
turn = itertools.count()


class Signature(requests.auth.AuthBase):
    """Signs the bytes that go out, if the case has a signature at all: where it has none, 401 is what has to come."""

    def __call__(self, request):
        if "X-Hub-Signature-256" in request.headers:
            body = request.body or b""
            body = body.encode() if isinstance(body, str) else body
            request.headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        return request


@schemathesis.auth()
class AdminKey:
    """The key of the admin API, for the calls that want one."""

    def get(self, case, context):
        return KEY

    def set(self, case, data, context):
        if case.operation.path.startswith("/admin/"):
            case.headers = {**(case.headers or {}), "X-Admin-Key": data}


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path == "/webhook":
        kwargs["auth"] = Signature()
    if case.operation.path == "/metrics":
        case.headers = {**(case.headers or {}), "Accept": next(ACCEPTS)}


@schemathesis.hook
def map_path_parameters(context, parameters):
    """Every second time, something that is there: what is made up hardly ever is."""
    operation = context.operation
    kind = {"id": "letter" if "dead-letters" in operation.path else "job"}
    for name in parameters or {}:
        known = KNOWN.get(kind.get(name, name))
        if known and next(turn) % 2:
            parameters[name] = known[next(turn) % len(known)]
    return parameters


def whole(value):
    """7.0 as 7: JSON Schema calls both integers, GitHub writes no fractions."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    return [whole(inner) for inner in value] if isinstance(value, list) else value


@schemathesis.hook
def map_body(context, body):
    """What no JSON Schema says.

    A payload in a form is a webhook's text, a pause ends in the future, and no organization stands twice, in two
    spellings.
    """
    if not isinstance(body, dict):
        return body
    if context.operation.path == "/webhook":
        if isinstance(body.get("payload"), str) and "workflow_job" not in body:
            body["payload"] = FORM
        return whole(body)
    if context.operation.path == "/admin/org-limits" and isinstance(body.get("limits"), dict):
        folded = {org.lower(): org for org in body["limits"]}
        body["limits"] = {org: body["limits"][org] for org in folded.values()}
    if context.operation.path.endswith("/pause") and TIME.fullmatch(str(body.get("until"))):
        body["until"] = "2100" + body["until"][4:].replace("-02-29", "-02-28")
    return body
