#!/usr/bin/env bash
# Holds docs/openapi.yaml against a running receiver by schemathesis; `make test` calls it. Needs the debug binaries and python3 with its
# venv module, which is installed from apt where it is missing.
#
#   run.sh [--seed N] [--examples N]     FIRST run makes target/openapi-venv and takes some 10 s longer
set -euo pipefail
cd "$(dirname "$0")/../.."
hint="install Python 3.10 or later with its venv module (Debian, Ubuntu: apt-get install python3-venv)"
venv=target/openapi-venv
wanted=integration-tests/openapi/requirements.txt

if ! python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
  command -v apt-get > /dev/null || { echo "openapi: no python3 with venv and no apt-get: $hint" >&2; exit 1; }
  sudo=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo > /dev/null || { echo "openapi: no python3 with venv, and neither root nor sudo to install it: $hint" >&2; exit 1; }
    sudo=(sudo)
  fi
  echo "openapi: installing python3-venv from apt" >&2
  {
    "${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3 python3-venv
  } >&2 || { echo "openapi: apt-get failed: $hint" >&2; exit 1; }
fi
if ! cmp -s "$wanted" "$venv/requirements.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
  cp "$wanted" "$venv/requirements.txt"
fi
integration-tests/redis.sh ensure > /dev/null
exec "$venv/bin/python" integration-tests/openapi/run.py "$@"
