"""Which pod is followed, and which container of it."""

from infra.following import chief_of, container_of
from tests.infra.made import pod


def of_age(minutes, name, index=None, phase="Running", **metadata):
    return pod({"phase": phase}, index, name, f"2026-11-22T10:{minutes:02d}:00Z", uid=name, **metadata)


def shown(pods, *followed):
    """The name of the pod whose log is shown, after those."""
    found = chief_of(pods, followed)
    return found and found["metadata"]["name"]


def test_the_chief_is_the_newest_pod_of_index_0():
    old, new, other = of_age(0, "old", 0, "Failed"), of_age(5, "new", 0), of_age(9, "other", 1)
    assert shown([new, other, old]) == "new"
    assert shown([new, other, old], "old") == "new"
    assert shown([new, other, old], "old", "new") == "new"
    assert shown([other]) is None
    assert container_of(old) == "canopy"
    named = pod({}, annotations={"kubectl.kubernetes.io/default-container": "sidecar"})
    assert container_of(named) == "sidecar"


def test_of_pods_side_by_side_one_is_followed_to_its_end_and_then_another_that_runs():
    first, second, third = of_age(0, "z"), of_age(0, "a"), of_age(1, "m")
    assert shown([third, first], "z") == "z"
    ended = of_age(0, "z", phase="Succeeded")
    assert shown([second, third, ended], "z") == "a"
    assert shown([of_age(0, "a", phase="Failed"), third, ended], "z", "a") == "m"
    assert shown([ended], "z") == "z"
    assert shown([], "z") is None


def test_a_pod_that_is_being_deleted_is_left_for_one_that_takes_its_place():
    leaving = of_age(0, "old", deletionTimestamp="2026-11-22T10:06:00Z")
    assert shown([leaving], "old") == "old"
    assert shown([leaving, of_age(6, "new")], "old") == "new"


def test_the_log_of_a_pod_that_failed_before_is_not_gone_back_to():
    failed, done = of_age(0, "old", phase="Failed"), of_age(5, "new", phase="Succeeded")
    assert shown([failed, done]) == "new"
    assert shown([failed, done], "new") == "new"
