#!/usr/bin/env bash
# Finds the redis-server that tests and the demo start themselves, on a port of their own:
#
#   redis.sh ensure     prints its path; installs it from apt when there is none
#
# At least 6.2, the first that has XAUTOCLAIM.
set -euo pipefail
[[ ${1:-} == ensure ]] || { echo "usage: redis.sh ensure" >&2; exit 2; }
need=6.2
hint="install Redis $need or later (Debian, Ubuntu: apt-get install redis-server) so that redis-server is on the PATH"

if ! command -v redis-server > /dev/null; then
  "$(dirname "$0")/apt.sh" redis "$hint" redis-server
  # The package also starts a server on 6379. Nobody asked for that one.
  sudo=() && [[ $(id -u) == 0 ]] || sudo=(sudo)
  "${sudo[@]}" systemctl disable --now redis-server > /dev/null 2>&1 || true
fi

path=$(command -v redis-server)
have=$("$path" --version | sed -nE 's/.* v=([0-9.]+).*/\1/p')
[[ $(printf '%s\n' "$need" "$have" | sort -V | head -1) == "$need" ]] || {
  echo "redis: $path is $have: $hint" >&2
  exit 1
}
echo "$path"
