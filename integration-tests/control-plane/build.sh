#!/usr/bin/env bash
# Builds etcd, kube-apiserver, kube-controller-manager and kubectl from the versions pinned in go.mod and go.sum.
#
# Why from source: the Go module proxy is all it needs, so the same control plane comes up on a laptop, in CI and behind
# a company proxy, without Docker. The result is cached in $JIT_CONTROL_PLANE_BIN (default: target/control-plane/bin of
# this checkout). Does nothing when that is up to date; two runs at once are safe: the second waits and then finds the
# work done.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
bin=$(realpath -m "${JIT_CONTROL_PLANE_BIN:-$here/../../target/control-plane/bin}")
say() { echo "control-plane: $*" >&2; }

version=$(sed -nE 's/^(require )?\s*k8s\.io\/kubernetes (v[^ ]+).*/\2/p' "$here/go.mod")
IFS=. read -r major minor _ <<< "${version#v}"
pkg=k8s.io/component-base/version
ldflags="-s -w -X $pkg.gitVersion=$version -X $pkg.gitMajor=$major -X $pkg.gitMinor=$minor"
# -mod=readonly: the committed files decide, or the build fails. No cgo: no C compiler needed, and the binaries are
# static.
flags=(-mod=readonly -buildvcs=false -trimpath "-ldflags=$ldflags")
export CGO_ENABLED=0 GOWORK=off

stamp=$(cat "$here/go.mod" "$here/go.sum" - <<< "${flags[*]}" | sha256sum | cut -c1-64)
up_to_date() { [[ -f $bin/.stamp && $(< "$bin/.stamp") == "$stamp" ]]; }

if up_to_date; then say "Kubernetes $version is up to date in $bin"; exit; fi
mkdir -p "$bin"
exec 9> "$bin/.lock"
flock -n 9 || { say "waiting for another build in $bin"; flock 9; }
if up_to_date; then say "Kubernetes $version is up to date in $bin"; exit; fi

need=$(sed -n 's/^go //p' "$here/go.mod")
command -v go > /dev/null || { say "go is not on the PATH: install Go $need or later"; exit 1; }
# Asked inside the module, so that a Go that may fetch a newer toolchain by itself (GOTOOLCHAIN=auto) answers with that
# one.
have=$(cd "$here"; go env GOVERSION 2> /dev/null || true)
if [[ $(printf '%s\n' "$need" "${have#go}" | sort -V | head -1) != "$need" ]]; then
  say "$(command -v go) is ${have:-too old}: install Go $need or later" \
    "(one from 1.21 on fetches that by itself with GOTOOLCHAIN=auto)"
  exit 1
fi

say "building Kubernetes $version into $bin (5 to 6 minutes on two cores the first time)"
rm -rf "$bin"/.new.* # of a build that was killed
new=$(mktemp -d "$bin/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
(cd "$here" && go build "${flags[@]}" -o "$new/" tool)
mv "$new/server" "$new/etcd" # named after the last folder of go.etcd.io/etcd/server/v3
rm -f "$bin/.stamp"
mv "$new"/* "$bin/" # one rename a file: an instance that runs keeps the binary that it started with
echo "$stamp" > "$bin/.stamp"
say "built $(cd "$bin" && echo *) in $SECONDS s"
