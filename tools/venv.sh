#!/usr/bin/env bash
# Make a virtual environment at $1; keep one that already works. $PYTHON, where it is set, is the Python to make it with.
#
# Else the first one from 3.11 on that is found decides the version, and of those of that version the quickest is taken:
# built with profile-guided optimisation, as Debian does, the same interpreter needs a third less time than as version
# managers build it, and only a clock tells them apart. Debian ships venv's pip apart from Python: as root the package
# is installed, else a Python that has one goes before, and the package's name is said.
set -euo pipefail
venv=$1
need="$(dirname "$0")/need.sh"
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
version='import sys; print("%d.%d" % sys.version_info[:2])'
has_pip='import venv; from ensurepip import bootstrap'
duration='import time
class Box:
    def __init__(self, value): self.value = value
    def plus(self, more): return Box(self.value + more)
def work():
    box, seen = Box(0), {}
    for number in range(20_000):
        box = box.plus(number)
        seen[number & 63] = (box, b"%d" % number)
best = 1 << 62
for _ in range(5):
    began = time.process_time_ns()
    work()
    best = min(best, time.process_time_ns() - began)
print(best // 1000)'

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$new_enough" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  exit 0
fi

able() { # whether it can make an environment that has pip, if need be after its package was installed
  if "$1" -c "$has_pip" 2>/dev/null; then return 0; fi
  local of
  of=$("$1" -c "$version")
  "$need" "/usr/lib/python$of/ensurepip/__init__.py:python$of-venv" && "$1" -c "$has_pip" 2>/dev/null
}

wanted= python= best_us=
for name in ${PYTHON:-$(type -ap python3.11 python3 python3.13 python3.12) /usr/bin/python3.11 /usr/bin/python3}; do
  if ! command -v "$name" >/dev/null || ! "$name" -c "$new_enough" 2>/dev/null; then continue; fi
  wanted=${wanted:-$("$name" -c "$version")}
  if [ "$("$name" -c "$version")" != "$wanted" ] || ! able "$name"; then continue; fi
  us=$("$name" -c "$duration")
  if [ -z "$python" ] || [ $((us * 10)) -lt $((best_us * 9)) ]; then python=$name best_us=$us; fi
done
if [ -z "$wanted" ]; then
  echo "Sluice needs Python 3.11 or newer, and ${PYTHON:-none} was found on PATH. On Debian 12: apt-get install python3-venv" >&2
  exit 1
fi
if [ -z "$python" ]; then exit 1; fi # need.sh has said what is missing
rm -rf "$venv"
"$python" -m venv "$venv"
