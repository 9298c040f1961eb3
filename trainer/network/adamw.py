"""AdamW whose update of a variable is one operation, and whose gradients may travel in half the bytes.

Promises: the weights that tf_keras' AdamW gives, to a few parts in 100,000 (1 - beta_2 is rounded elsewhere).
The library's dozen operations for each of MobileNetV2's 158 variables take seconds to trace, at every start
and restart, and milliseconds of every step. Between workers without NCCL, a step of MobileNetV2 on two cores
spends a tenth of its time on exchanging gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf
import tf_keras


class FusedAdamW(tf_keras.optimizers.AdamW):
    """Decoupled weight decay, then Adam, with tf_keras' settings, variables and exclusions.

    Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization; Kingma and Ba 2015, Adam, in the order
    of computation given just before its section 2.1. Variables are float32, also in mixed precision.
    """

    def __init__(
        self,
        *args: Any,
        exchange: str = "float32",
        late_from: int = 0,
        is_late: Callable[[Any], bool] = lambda _: False,
        **kwargs: Any,
    ) -> None:
        """Makes an optimizer.

        Args:
            *args: the library's.
            exchange: type in which gradients travel between replicas, and are summed. bfloat16 has float32's
                range, so none that is small becomes zero, and 8 significant bits.
            late_from: steps after which some variables begin to be updated. Their moments are corrected for
                their own age: by that of all, their first updates would be several times too large.
            is_late: whether a variable is one of those.
            **kwargs: the library's.
        """
        super().__init__(*args, **kwargs)
        self._exchange = tf.as_dtype(exchange)
        self._late_from, self._is_late = late_from, is_late

    def aggregate_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Sums the replicas' gradients.

        Args:
            grads_and_vars: gradients, None where a variable has none, and the variables.

        Returns:
            The same with the sums, in each gradient's own type.
        """
        pairs = list(grads_and_vars)
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return pairs
        summed = super().aggregate_gradients([(_cast(each, self._exchange), v) for each, v in pairs])
        return [(_cast(each, v.dtype), v) for each, v in summed]

    def apply_gradients(self, *args: Any, **kwargs: Any) -> Any:
        """Works out once what all variables share, and updates them."""
        step = tf.cast(self.iterations + 1, tf.float32)
        self._shared = self._of_age(step)
        self._shared_late = self._of_age(tf.maximum(step - self._late_from, 1.0))
        return super().apply_gradients(*args, **kwargs)

    def _of_age(self, step: Any) -> dict[str, Any]:
        """What variables share that have been updated in so many steps, this one included."""
        beta1, beta2 = tf.constant(self.beta_1), tf.constant(self.beta_2)
        return {
            "beta1_power": beta1**step,
            "beta2_power": beta2**step,
            "beta1": beta1,
            "beta2": beta2,
            "epsilon": tf.constant(self.epsilon),
        }

    def update_step(self, gradient: Any, variable: Any) -> None:
        """Updates one variable and its moments.

        Args:
            gradient: float32 of the variable's shape, summed over the replicas.
            variable: one that the optimizer was built for.
        """
        place = self._index_dict[self._var_key(variable)]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].handle,
            v=self._velocities[place].handle,
            lr=self.learning_rate.read_value(),
            grad=tf.convert_to_tensor(gradient),
            **(self._shared_late if self._is_late(variable) else self._shared),
        )


def _cast(gradient: Any, dtype: tf.DType) -> Any:
    return None if gradient is None else tf.cast(gradient, dtype)
