#!/usr/bin/env bash
# Moves the control plane to another Kubernetes release: bump.sh 1.36.3
#
# Rewrites go.mod and go.sum next to this script; commit both. Everything else (build.sh, CI, other machines) only reads
# them, so a build never depends on what a proxy considers newest today. etcd is whatever version that Kubernetes
# release itself requires.
set -euo pipefail
[[ ${1:-} =~ ^1\.[0-9]+\.[0-9]+$ ]] || { echo "usage: bump.sh VERSION, for example bump.sh 1.36.3" >&2; exit 2; }
version=$1 here=$(dirname "$(realpath "$0")") work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOWORK=off

go mod download "k8s.io/kubernetes@v$version"
upstream=$(go env GOMODCACHE)/cache/download/k8s.io/kubernetes/@v/v$version.mod

# Kubernetes requires its staging modules as v0.0.0 and replaces them by folders that the published module does not
# contain. Each of them is also published on its own, as v0.MINOR.PATCH.
{
  echo 'module control-plane'
  grep -m1 '^go ' "$upstream"
  echo 'tool ('
  printf '\t%s\n' go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kubectl}
  echo ')'
  echo "require k8s.io/kubernetes v$version"
  grep -oE 'k8s\.io/[a-z0-9-]+ => \./staging' "$upstream" | sed "s|\(.*\) => .*|replace \1 => \1 v0.${version#1.}|"
} > go.mod
go mod tidy
go mod verify
mv go.mod go.sum "$here/"
etcd=$(cd "$here" && go list -m -f '{{.Version}}' go.etcd.io/etcd/server/v3)
echo "go.mod and go.sum are at Kubernetes $version, etcd $etcd: run build.sh, then commit both"
