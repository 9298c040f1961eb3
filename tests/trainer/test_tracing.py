"""What fails in a graph, in TensorFlow's own words."""

import pytest
import tensorflow as tf

from trainer import tracing

TOLD = "Graph execution error:"


def test_an_error_in_a_graph_is_told_without_where_it_was_traced():
    @tracing.traced
    def taken(index):
        return tf.gather(tf.range(2), index) + 1

    with pytest.raises(tf.errors.InvalidArgumentError) as found:
        taken(tf.constant(3))
    assert tracing.words(found.value) == "indices = 3 is not in [0, 2)"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["Socket closed", "Additional GRPC error information"], "Socket closed"),
        (
            [TOLD, "", "2 root error(s) found.", "  (0) ABORTED:  gone", "\t [[{{node a}}]]"],
            "(0) ABORTED:  gone",
        ),
        ([TOLD, "", "Detected at node a defined at:", "<stack traces unavailable>", "gone"], "gone"),
        ([TOLD], TOLD),
        ([], "AbortedError"),
    ],
)
def test_what_is_said_first_is_passed_over_where_something_follows(lines, said):
    assert tracing.words(tf.errors.AbortedError(None, None, "\n".join(lines))) == said
