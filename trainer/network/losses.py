"""The losses that training minimises, for each tag of each image.

Promises: finite, and with finite gradients, for every finite logit; labels may lie between 0 and 1.
Validation always reports binary cross-entropy, so that runs with different losses can be compared.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

FOCUS = 2.0  # Lin et al. 2017, Focal Loss for Dense Object Detection: gamma, section 5.1
# Ridnik et al. 2021, Asymmetric Loss For Multi-Label Classification, section 3.1: gamma- and m; gamma+ is 0.
ABSENT_FOCUS, MARGIN = 4.0, 0.05


def of(kind: str, labels: Any, logits: Any) -> Any:
    """The loss that `--loss` names.

    Args:
        kind: bce, focal or asymmetric.
        labels: float32[batch, classes] in 0..1.
        logits: float32[batch, classes].

    Returns:
        float32[batch, classes], at least 0.
    """
    if kind == "bce":
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
    score = tf.sigmoid(logits)
    present, absent = tf.nn.softplus(-logits), tf.nn.softplus(logits)
    if kind == "focal":
        present *= tf.sigmoid(-logits) ** FOCUS
        absent *= score**FOCUS
    else:
        # An absent tag whose score is below the margin costs nothing.
        shifted = tf.maximum(score - MARGIN, 0.0)
        absent = -(shifted**ABSENT_FOCUS) * tf.math.log(1 - shifted)
    return labels * present + (1 - labels) * absent
