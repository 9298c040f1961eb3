#!/bin/sh
# Makes the virtual environment /opt/canopy, with nothing but the lock's setuptools in it.
# Usage: tools.sh LOCK
set -eu

python -m venv --without-pip /opt/canopy
awk '/^[^ ]/ { wanted = /^setuptools==/ } wanted' "$1" > setuptools.lock
python -m pip --python /opt/canopy/bin/python --no-cache-dir --disable-pip-version-check \
  install --quiet --no-compile --require-hashes --requirement setuptools.lock
