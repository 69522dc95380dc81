#!/usr/bin/env bash
# Finds libfaketime, which has a program's wall clock be wrong while its timers go on (the simulator preloads it into
# workers):
#
#   libfaketime.sh ensure     prints its path; installs it from apt when there is none
set -euo pipefail
[[ ${1:-} == ensure ]] || { echo "usage: libfaketime.sh ensure" >&2; exit 2; }
hint="install libfaketime (Debian, Ubuntu: apt-get install libfaketime)"
find_it() {
  ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1 2> /dev/null | head -1 || true
}

[[ -n $(find_it) ]] || "$(dirname "$0")/apt.sh" libfaketime "$hint" libfaketime
path=$(find_it)
[[ -n $path ]] || { echo "libfaketime: installed, and not where it is looked for: $hint" >&2; exit 1; }
echo "$path"
