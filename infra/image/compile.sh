#!/bin/sh
# Compiles a folder's modules, all that can be: pods' root file system is read-only, so what is not compiled in the
# image would be compiled at every start.
# Usage: compile.sh FOLDER [OPTION OF COMPILEALL...]
set -eu

# Hash-based and unchecked: copying layers about changes files' times, and the files do not change any more. What a
# build has imported was compiled then, by its times: it is compiled anew (-f), and what this imports is not (-B).
compile() {
  python -B -m compileall -q -f --invalidation-mode unchecked-hash "$@"
}

# Workers want shared memory to write to, which not every builder's sandbox has: there one process does it. Some
# packages carry templates in Python's name that do not compile: it names them, and they are no reason to stop.
compile -j 0 "$@" > /dev/null 2>&1 || compile "$@" || echo "compile.sh: what is named above stays as it is" >&2
