"""Keeps the libraries' start-up chatter off the user's screen, and nothing else.

Promises: what a library says of trouble still comes through, and a failing import shows all it wrote.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# absl writes these before its log level can be set: information, and a notice about the notice.
_NOISE = re.compile(rb"^(I\d{4} |WARNING: All log messages before absl::InitializeLog)")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Wraps the first import of TensorFlow or Beam.

    Their C++ parts write to file descriptor 2 itself, so that is what is held back, and given out less the
    noise when the import is done.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # TensorFlow Hub's layer is one of tf_keras
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    sys.stderr.buffer.write(line)
            sys.stderr.flush()
