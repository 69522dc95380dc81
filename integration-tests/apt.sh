#!/usr/bin/env bash
# Installs PACKAGES from apt, as root or with sudo:
#
#   apt.sh WHO HINT PACKAGES...     WHO begins each message; HINT says what a person can do where apt cannot
set -euo pipefail
[[ $# -ge 3 ]] || { echo "usage: apt.sh WHO HINT PACKAGES..." >&2; exit 2; }
who=$1 hint=$2
shift 2
command -v apt-get > /dev/null || { echo "$who: $* is missing, and there is no apt-get: $hint" >&2; exit 1; }
sudo=()
if [[ $(id -u) != 0 ]]; then
  command -v sudo > /dev/null || {
    echo "$who: $* is missing, and there is neither root nor sudo to install it: $hint" >&2
    exit 1
  }
  sudo=(sudo)
fi
echo "$who: installing $* from apt" >&2
{
  "${sudo[@]}" apt-get update -q &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
} >&2 || { echo "$who: apt-get failed: $hint" >&2; exit 1; }
