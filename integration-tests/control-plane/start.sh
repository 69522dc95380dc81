#!/usr/bin/env bash
# Runs a real control plane (what build.sh built) on loopback, in the foreground, with its state, logs and kubeconfig in
# DIR:
#
#   start.sh DIR        prints "ready: KUBECONFIG=DIR/kubeconfig"; Ctrl-C or TERM ends it
#
# Any number may run side by side: etcd listens on a socket in DIR and the API server on a port that is free when it
# starts. Nothing outlives this script, not even when it is killed with -9: the kernel then kills the children
# (pdeathsig). There is no scheduler and no kubelet: whoever tests plays those (README.md).
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: start.sh DIR" >&2; exit 2; }
here=$(dirname "$(realpath "$0")")
bin=$(realpath -m "${JIT_CONTROL_PLANE_BIN:-$here/../../target/control-plane/bin}")
[[ -f $bin/.stamp ]] || { echo "control-plane: nothing built in $bin: run $here/build.sh" >&2; exit 1; }
for tool in openssl curl setpriv flock; do
  command -v "$tool" > /dev/null || {
    echo "control-plane: $tool is missing: install openssl, curl and util-linux" >&2
    exit 1
  }
done
umask 077
mkdir -p "$1"; cd "$1"; dir=$PWD
exec 9> lock; flock -n 9 || { echo "control-plane: another one runs in $dir" >&2; exit 1; }
rm -f kubeconfig etcd.sock*

declare -A pids=()
# -9, since an API server that is asked nicely takes a minute; what etcd has not written is of no use to anybody.
stop() { { kill -9 "${pids[@]}" || true; wait; } 2> /dev/null; rm -f "$dir/kubeconfig"; }
trap stop EXIT; trap 'exit 130' INT; trap 'exit 143' TERM HUP
spawn() { local name=$1; shift; setpriv --pdeathsig KILL "$bin/$name" "$@" > "$name.log" 2>&1 & pids[$name]=$!; }
alive() { kill -0 "${pids[$1]:-none}" 2> /dev/null; }
fail() { echo "control-plane: $1 ${2:-ended}; the end of $dir/$1.log:" >&2; tail -5 "$1.log" >&2; exit 1; }

[[ -f sa.key ]] || {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out sa.key
  openssl pkey -in sa.key -pubout -out sa.pub
}
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" > tokens.csv

# A test's cluster may be lost with the machine: no fsync. Nobody dials the peer port or an advertised address, so any
# will do.
spawn etcd --data-dir etcd --unsafe-no-fsync --log-level warn \
  --listen-client-urls unix://etcd.sock --advertise-client-urls http://127.0.0.1:0 --listen-peer-urls http://127.0.0.1:0

apiserver=( # The limits leave room for 900 pods a second; the service range only has to exist.
  --etcd-servers unix://etcd.sock --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --cert-dir certs
  --authorization-mode RBAC --token-auth-file tokens.csv --allow-privileged
  --service-account-issuer https://kubernetes.default.svc
  --service-account-key-file sa.pub --service-account-signing-key-file sa.key
  --service-cluster-ip-range 10.0.0.0/24 --endpoint-reconciler-type none
  --max-requests-inflight 4000 --max-mutating-requests-inflight 2000
)
get() {
  curl -fs --max-time 2 --cacert certs/apiserver.crt -H "Authorization: Bearer $token" \
    "https://127.0.0.1:$port$1" > /dev/null
}
port_taken() { ! alive kube-apiserver && grep -q 'address already in use' kube-apiserver.log; }
until alive kube-apiserver && get /readyz; do
  if [[ ! -v pids[kube-apiserver] ]] || port_taken; then
    port=$((20000 + RANDOM % 10000)) # below the range from which the kernel serves outgoing connections
    spawn kube-apiserver "${apiserver[@]}" --secure-port "$port"
  fi
  alive etcd || fail etcd
  alive kube-apiserver || port_taken || fail kube-apiserver
  ((SECONDS < 120)) || fail kube-apiserver 'is not ready after 120 s'
  sleep 0.05
done

cat > admin.kubeconfig << YAML
apiVersion: v1
kind: Config
clusters:
- name: test
  cluster: {server: "https://127.0.0.1:$port", certificate-authority-data: $(base64 -w0 certs/apiserver.crt)}
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
YAML

# Only what a runner's life needs. No node lifecycle and no taint eviction: they would evict pods of nodes that have no
# kubelet.
controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller
controllers+=,job-controller,ttl-after-finished-controller
controllers+=,pod-garbage-collector-controller,resourcequota-controller
spawn kube-controller-manager --kubeconfig admin.kubeconfig --controllers "$controllers" --leader-elect=false \
  --secure-port 0 \
  --use-service-account-credentials=false --kube-api-qps 2000 --kube-api-burst 4000
until get /api/v1/namespaces/default/serviceaccounts/default; do
  alive kube-controller-manager || fail kube-controller-manager
  ((SECONDS < 120)) || fail kube-controller-manager 'has done nothing after 120 s'
  sleep 0.05
done

ln -f admin.kubeconfig kubeconfig # complete the moment it appears
echo "ready: KUBECONFIG=$dir/kubeconfig"
while :; do
  for name in "${!pids[@]}"; do alive "$name" || fail "$name"; done
  wait -n || true
done
