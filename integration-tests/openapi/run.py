"""Starts Redis and a receiver, gives the store something of everything, and lets schemathesis loose on it.

What stands in the store is there by the system's own hands: a worker of the debug build applies webhooks, reserves a
runner, buries what it cannot read, and is killed. Its GitHub is a socket that never answers, so the runner stays where
it is. Everything that is started here ends here, by its process id.
"""

import argparse
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "integration-tests/openapi"
BIN = ROOT / "target/debug"
SECRET, KEY = secrets.token_hex(16), secrets.token_hex(16)
# So long things may take on a busy machine.
PATIENCE = 60


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"openapi: not within {PATIENCE} s: {what}")
        time.sleep(0.05)
    return found


def redis(port, *command):
    """One command, in Redis's own protocol: redis-cli need not be there."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in (str(part).encode() for part in command))
        connection.sendall(b"*%d\r\n%s" % (len(command), parts))
        answer = connection.recv(4096)
    if answer.startswith(b"-"):
        sys.exit(f"openapi: {command[0]}: {answer.decode()}")
    return answer


def call(url, method="GET", body=None, headers=()):
    request = urllib.request.Request(url, method=method, data=body, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def admin(base, method, path, body=None):
    return call(base + path, method, json.dumps(body).encode() if body is not None else None, {"X-Admin-Key": KEY})


def webhook(base, action, job, labels=("code-linux",)):
    payload = {
        "action": action,
        "workflow_job": {"id": job, "run_attempt": 1, "labels": list(labels), "conclusion": None},
        "repository": {"full_name": "acme/app", "private": True, "owner": {"login": "acme", "type": "Organization"}},
        "organization": {"login": "acme"},
    }
    body = json.dumps(payload).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "workflow_job", "X-Hub-Signature-256": signature, "Content-Type": "application/json",
    }
    return call(base + "/webhook", "POST", body, headers)


@contextlib.contextmanager
def running(name, command, log, **environment):
    with open(log, "wb") as output:
        environment = {"PATH": os.environ["PATH"], **environment}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def seed(base, port, redis_url, silent, directory):
    """Something of everything. Returns the names of what is there."""
    letters = []
    # Letters with ids that stand in the description's examples; later ones get their own.
    for n in range(1, 21):
        event = {"action": "queued", "job": str(9000 + n), "org": "acme", "repo": "acme/app"}
        stream = "jit:provision" if n % 5 == 0 else "nowhere" if n % 7 == 0 else "jit:events"
        fields = [
            "v", 1, "stream", stream, "id", f"1699999999999-{n}", "reason", "a test wants it so",
            "entry.v", 1, "entry.event", json.dumps(event),
        ]
        redis(port, "XADD", "jit:dead", f"1700000000000-{n}", *fields)
        letters.append(f"1700000000000-{n}")
    redis(port, "XADD", "jit:events", "*", "v", 99, "event", "of another release")
    environment = {
        "GHES_URL": f"http://127.0.0.1:{silent}", "GITHUB_PAT": "none", "GITHUB_TIMEOUT": "150s",
        "REDIS_URL": redis_url, "PORT": "0",
        "LISTEN_ADDRESS": "127.0.0.1", "RUNNER_BACKEND": "process", "RUNNER_COMMAND": "true",
        "RUNNER_DIRECTORY": f"{directory}/runners",
        "MAX_RUNNERS_PER_ORG": "2",
    }
    with running("worker", [BIN / "jit-worker"], f"{directory}/worker.log", **environment):
        until("a worker", lambda: call(base + "/health")["kubernetes"] == "connected")
        until("an open ledger", lambda: b"epoch" in redis(port, "HGETALL", "ledger:meta"))
        for job in (4711, 4712, 4713):
            webhook(base, "queued", job)
        webhook(base, "waiting", 4714)
        webhook(base, "completed", 4715)
        runners = until(
            "two runners", lambda: len(found := admin(base, "GET", "/admin/runners")["runners"]) == 2 and found
        )
        until("four jobs", lambda: len(admin(base, "GET", "/admin/jobs")["jobs"]) == 4)
        newest = lambda: admin(base, "GET", "/admin/dead-letters")["dead_letters"][0]
        until("a letter of a worker's", lambda: newest()["reason"].startswith("version"))
        # Killed, so that nothing of this changes any more but by what comes.
    admin(base, "PUT", "/admin/org-limits/acme", {"limit": 25})
    admin(base, "POST", "/admin/orgs/other/pause", {"reason": "a test wants it so"})
    names = [runner["name"] for runner in runners]
    return {"job": [4711, 4713, 4714], "name": names, "letter": letters, "org": ["acme", "other", "octocat"]}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seed", default="1")
    arguments.add_argument("--examples", default="25", help="cases an operation and phase")
    arguments.add_argument("--schema", default=str(ROOT / "docs/openapi.yaml"))
    wanted, more = arguments.parse_known_args()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="jit-openapi-"))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = free_port()
        flags = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        stack.enter_context(running("redis", ["redis-server", *flags], f"{directory}/redis.log"))
        until("Redis", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        redis_url = f"redis://127.0.0.1:{port}/0"
        limits = pathlib.Path(directory, "org-limits.yaml")
        limits.write_text("org_limits:\n  platform-team: 25\n")
        log = f"{directory}/receiver.log"
        environment = {
            "GHES_URL": "https://github.example.com", "WEBHOOK_SECRET": SECRET, "ADMIN_API_KEY": KEY,
            "REDIS_URL": redis_url, "PORT": "0",
            "LISTEN_ADDRESS": "127.0.0.1", "ORG_LIMITS_FILE": str(limits), "DRAIN_DELAY": "0",
            "TRUSTED_PROXIES": "127.0.0.1",  # all calls are of one sender
        }
        receiver = stack.enter_context(running("receiver", [BIN / "jit-receiver"], log, **environment))
        address = until("the receiver", lambda: re.search(r'"address":"([^"]+)"', pathlib.Path(log).read_text()))
        base = f"http://{address.group(1)}"
        known = seed(base, port, redis_url, silent.getsockname()[1], directory)
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml",
            "run", wanted.schema, "--url", base,
            "--mode", "all", "--max-examples", wanted.examples, "--seed", wanted.seed,
            "--request-timeout", "15", "--no-color", *more,
        ]
        environment = {
            **os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks", "PYTHONDONTWRITEBYTECODE": "1",
            "OPENAPI_WEBHOOK_SECRET": SECRET, "OPENAPI_ADMIN_KEY": KEY, "OPENAPI_KNOWN": json.dumps(known),
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }
        began = time.monotonic()
        result = subprocess.run(command, env=environment, cwd=directory).returncode
        print(f"openapi: {time.monotonic() - began:.0f} s")
        if receiver.poll() is not None:
            end = pathlib.Path(log).read_text()[-3000:]
            sys.exit(f"openapi: the receiver ended with {receiver.returncode}:\n{end}")
        sys.exit(result)


if __name__ == "__main__":
    main()
