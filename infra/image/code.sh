#!/bin/sh
# Builds Canopy itself into a folder, compiled: see packages.sh for how and why.
# Usage: code.sh FOLDER
set -eu

python -m pip --python /opt/canopy/bin/python --no-cache-dir --disable-pip-version-check \
  install --quiet --no-compile --no-deps --no-build-isolation --no-index --target "$1" .
rm -rf "$1/bin"
/opt/canopy/bin/python -m compileall -q --invalidation-mode unchecked-hash "$1"
