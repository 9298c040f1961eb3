"""Whether all workers of a run were started alike."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest

from canopy.cli import UserError
from trainer.config import Config
from trainer.training import alike


def settings(**changes):
    return Config(data="", model_dir="", **changes)


def told(*workers):
    """What each worker is told, who compares its settings and data with the others'; empty for nothing."""
    rows, met = {}, Barrier(len(workers))

    def of(index):
        def gather(numbers):
            rows[index] = numbers
            met.wait(10)
            found = [rows[i] for i in range(len(workers))]
            assert len({len(row) for row in found}) == 1
            met.wait(10)
            return found

        try:
            config, fingerprint = workers[index]
            alike.check(config, fingerprint, gather)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(of, range(len(workers))))


def test_workers_that_were_started_alike_are_no_mistake():
    first = Config(data="a", model_dir="b", seed=3)
    second = Config(
        data="c", model_dir="d", seed=3, log_format="json", restart=True, profile=True, require_gpu=True
    )
    assert told((first, "data"), (second, "data")) == ["", ""]
    assert told((first, "data")) == [""]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"checkpoint_steps": 7}, {"weights": "the/file.h5"}])
def test_every_worker_says_who_differs_from_the_chief_and_in_what(changes):
    ((name, value),) = changes.items()
    chief = settings()
    said = told((chief, "data"), (chief, "data"), (settings(**changes), "data"))
    assert (
        said
        == [
            "worker 0 and worker 2 were started with different settings or data "
            f"(--{name}: {getattr(chief, name)!r} and {value!r}): give all workers of a run the same"
        ]
        * 3
    )


@dataclass(frozen=True, kw_only=True)
class Newer(Config):
    """The settings of a Canopy to come."""

    novel: int = 1


def test_a_worker_of_another_version_is_told_by_the_setting_that_it_alone_has():
    (first, second) = told((settings(), "data"), (Newer(data="", model_dir=""), "data"))
    assert "(--novel: None and 1)" in first
    assert second == first


def test_other_data_are_named():
    said = told((settings(), "data"), (settings(), "other"))
    assert all("(fingerprint of --data: 'data' and 'other')" in each for each in said)
