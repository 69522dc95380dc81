#!/usr/bin/env bash
# Finds luacheck, and looks with it for misspelt globals, unused locals and shadowed names in the scripts of Redis:
#
#   luacheck.sh ensure     prints its path; installs it from apt when there is none
#   luacheck.sh check      checks all scripts; those of the ledger as they are put together, in target/lua
set -euo pipefail
hint="install luacheck (Debian, Ubuntu: apt-get install lua-check)"
case ${1:-} in
  ensure | check) ;;
  *) echo "usage: luacheck.sh ensure | check" >&2; exit 2 ;;
esac

command -v luacheck > /dev/null || "$(dirname "$0")/apt.sh" luacheck "$hint" lua-check
[[ $1 == check ]] || { command -v luacheck; exit 0; }

cd "$(dirname "$0")/.."
dir=$PWD/target/lua
rm -rf "$dir" && mkdir -p "$dir"
LUA_DIR=$dir cargo test --quiet -p jit-core --lib ledger::scripts > /dev/null
[[ -n $(ls "$dir") ]] || { echo "luacheck: the test in ledger/scripts.rs has written no script to $dir" >&2; exit 1; }
luacheck --quiet --codes --config .luacheckrc "$dir" crates/core/src/stream/lua crates/core/src/store
