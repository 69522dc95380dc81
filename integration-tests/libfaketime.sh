#!/usr/bin/env bash
# Finds libfaketime, which has a program's wall clock be wrong while its timers go on (the simulator preloads it into workers):
#
#   libfaketime.sh ensure     prints its path; installs it from apt when there is none
set -euo pipefail
[[ ${1:-} == ensure ]] || { echo "usage: libfaketime.sh ensure" >&2; exit 2; }
hint="install libfaketime (Debian, Ubuntu: apt-get install libfaketime)"
find_it() { ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 2> /dev/null | head -1 || true; }

if [[ -z $(find_it) ]]; then
  command -v apt-get > /dev/null || { echo "libfaketime: none, and no apt-get: $hint" >&2; exit 1; }
  sudo=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo > /dev/null || { echo "libfaketime: none, and neither root nor sudo to install it: $hint" >&2; exit 1; }
    sudo=(sudo)
  fi
  echo "libfaketime: installing it from apt" >&2
  {
    "${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libfaketime
  } >&2 || { echo "libfaketime: apt-get failed: $hint" >&2; exit 1; }
fi
path=$(find_it)
[[ -n $path ]] || { echo "libfaketime: installed, and not where it is looked for: $hint" >&2; exit 1; }
echo "$path"
