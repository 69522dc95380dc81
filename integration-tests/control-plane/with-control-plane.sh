#!/usr/bin/env bash
# Runs COMMAND with $KUBECONFIG pointing at a control plane that ends with it, and passes on its exit status:
#
#   with-control-plane.sh cargo test
#
# Builds first if need be. Inside another with-control-plane.sh, or with $KUBECONFIG at a test cluster of yours on
# loopback (kind, start.sh), it uses that one. Never another: tests create and delete as cluster-admin, and the variable
# may name production.
set -euo pipefail
[[ $# -gt 0 ]] || { echo "usage: with-control-plane.sh COMMAND..." >&2; exit 2; }
here=$(dirname "$(realpath "$0")")
bin=$(realpath -m "${JIT_CONTROL_PLANE_BIN:-$here/../../target/control-plane/bin}")

if [[ -n ${KUBECONFIG:-} ]]; then
  kubectl=$bin/kubectl; [[ -x $kubectl ]] || kubectl=$(command -v kubectl || echo false)
  server=$("$kubectl" config view --minify -o 'jsonpath={.clusters[0].cluster.server}' 2> /dev/null || true)
  if ! [[ $server =~ ^https?://(127\.[0-9.]+|localhost|\[::1\])(:|/|$) ]]; then
    echo "control-plane: \$KUBECONFIG names ${server:-no cluster}, not one on loopback: starting one of our own" >&2
  elif ! "$kubectl" --request-timeout=5s get --raw /readyz > /dev/null 2>&1; then
    echo "control-plane: $server of \$KUBECONFIG does not answer: starting one of our own" >&2
  else
    echo "control-plane: using $server of \$KUBECONFIG" >&2
    exec "$@"
  fi
fi

"$here/build.sh"
dir=$(mktemp -d)
plane='' cmd=''
# The control plane goes last, so that a COMMAND that drains on a signal still has it.
# shellcheck disable=SC2317 # traps call it
stop() { [[ -z $plane ]] || { kill "$plane" && wait "$plane"; } 2> /dev/null || true; rm -rf "$dir"; }
trap stop EXIT; trap 'exit 130' INT; trap 'exit 143' TERM HUP
# In a session of its own, where Ctrl-C does not reach it; the pdeathsig is for a kill -9 of this script.
setsid setpriv --pdeathsig TERM "$here/start.sh" "$dir" > "$dir/start.log" 2>&1 &
plane=$!
until [[ -f $dir/kubeconfig ]]; do
  kill -0 "$plane" 2> /dev/null || { cat "$dir/start.log" >&2; exit 1; }
  sleep 0.05
done
export KUBECONFIG=$dir/kubeconfig

# A terminal's Ctrl-C reaches COMMAND by itself. A TERM is sent to this script alone: hand it to all that COMMAND
# started (cargo would not tell the test binary, for one).
# shellcheck disable=SC2317
tree() { local child; for child in $(ps -o pid= --ppid "$1"); do tree "$child"; done; echo "$1"; }
trap : INT HUP
trap '[[ -z $cmd ]] || kill $(tree "$cmd") 2> /dev/null || true' TERM
# bash has a background job ignore both signals, and closes its stdin
env --default-signal=INT,QUIT setpriv --pdeathsig TERM "$@" <&0 &
cmd=$!
while kill -0 "$cmd" 2> /dev/null; do wait "$cmd" || true; done # a trap cuts a wait short
status=0; wait "$cmd" || status=$?
exit "$status"
