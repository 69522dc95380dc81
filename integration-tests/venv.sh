#!/usr/bin/env bash
# Prints the path of target/NAME-venv, a Python environment with what REQUIREMENTS lists; makes it when there is none,
# or another list.
#
#   venv.sh NAME REQUIREMENTS
#
# Needs python3 with its venv module, which is installed from apt where it is missing.
set -euo pipefail
[[ $# == 2 ]] || { echo "usage: venv.sh NAME REQUIREMENTS" >&2; exit 2; }
wanted=$(realpath "$2")
cd "$(dirname "$0")/.."
hint="install Python 3.10 or later with its venv module (Debian, Ubuntu: apt-get install python3-venv)"
venv=$PWD/target/$1-venv

python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2> /dev/null ||
  integration-tests/apt.sh "$1" "$hint" python3 python3-venv
if ! cmp -s "$wanted" "$venv/requirements.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$wanted" >&2
  cp "$wanted" "$venv/requirements.txt"
fi
echo "$venv"
