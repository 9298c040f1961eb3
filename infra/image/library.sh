#!/bin/sh
# Compiles Python's standard library, which Python's own images bring as source alone, and puts what it makes into a
# folder, to be laid over the root of another file system.
# Usage: library.sh FOLDER
set -eu

library=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
sh infra/image/compile.sh "$library" -x site-packages
mkdir -p "$1"
find "$library" -name '*.pyc' -not -path '*/site-packages/*' -exec cp --parents --target-directory "$1" {} +
