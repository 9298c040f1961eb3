#!/bin/sh
# Builds Canopy itself into a folder, compiled.
# Usage: code.sh FOLDER
set -eu

python -m pip --python /opt/canopy/bin/python --no-cache-dir --disable-pip-version-check \
  install --quiet --no-compile --no-deps --no-build-isolation --no-index --target "$1" .
rm -rf "$1/bin"
sh infra/image/compile.sh "$1"
