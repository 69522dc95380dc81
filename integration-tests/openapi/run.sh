#!/usr/bin/env bash
# Holds docs/openapi.yaml against a running receiver by schemathesis; `make test` calls it. Needs the debug binaries.
#
#   run.sh [--seed N] [--examples N]     FIRST run makes target/openapi-venv and takes some 10 s longer
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$(integration-tests/venv.sh openapi integration-tests/openapi/requirements.txt)
integration-tests/redis.sh ensure > /dev/null
exec "$venv/bin/python" integration-tests/openapi/run.py "$@"
