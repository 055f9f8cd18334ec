#!/usr/bin/env bash
# Prints the Python with which an environment is to be made, and says on stderr which one it took.
#
#   python=$(bash environment/find_python.sh .venv)
#
# In this order: the one that the environment (the argument) has already, so that it is never mixed;
# $PYTHON, if given; python3.13, 3.12, 3.11 and python3, the first that is 3.11 or newer and can make
# environments; else one that uv brings, where uv is installed.
set -euo pipefail
venv=${1:-.venv}

usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

take() {
    echo "Python: $("$1" -c 'import platform; print(platform.python_version())'), $2" >&2
    echo "$1"
    exit 0
}

if [ -x "$venv/bin/python" ] && usable "$venv/bin/python"; then
    take "$venv/bin/python" "of $venv"
fi
if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" && take "$PYTHON" "as PYTHON says"
    echo "PYTHON=$PYTHON is no Python of 3.11 or newer that can make environments (on Debian," \
        "python3.11-venv is a package of its own); give another, or leave it out" >&2
    exit 2
fi
for name in python3.13 python3.12 python3.11 python3; do
    if found=$(command -v "$name") && usable "$found"; then
        take "$found" "$found"
    fi
done
if command -v uv >/dev/null; then
    uv python install --quiet 3.12 >&2
    found=$(uv python find --no-project 3.12)
    usable "$found" && take "$found" "brought by uv"
fi
echo "Python 3.11 or newer is needed, and none was found: install python3.11 (on Debian" \
    "python3.11-venv, too) or uv, or give its path as PYTHON=..." >&2
exit 2
