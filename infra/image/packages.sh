#!/bin/sh
# Installs a lock file's packages into /opt/canopy, each checked against its hash, and compiles them.
# Usage: packages.sh LOCK
set -eu

# The lock is complete, and leaves out on purpose what cpu.overrides does: nothing is resolved here (--no-deps).
# Without isolation, what comes as source only is built with the lock's setuptools instead of the newest.
python -m pip --python /opt/canopy/bin/python --no-cache-dir --disable-pip-version-check \
  install --quiet --no-compile --no-deps --no-build-isolation --require-hashes --requirement "$1"
/opt/canopy/bin/python infra/image/notices.py /opt/canopy/NOTICES

# C++ headers and static archives serve whoever compiles against a library, and tests whoever works on one; nothing
# here does.
for unused in tensorflow/include pyarrow/include pyarrow/tests pandas/tests matplotlib/tests; do
  rm -rf /opt/canopy/lib/python3.*/site-packages/"$unused"
done
find /opt/canopy/lib -name '*.a' -delete

sh infra/image/compile.sh /opt/canopy/lib
