"""How an attempt ends, from how its workers did."""

import signal

from canopy import cli
from trainer.launching import supervise


def test_what_a_restart_cannot_mend_is_the_runs_exit_code():
    lost, killed, stopped = cli.EXIT_PEER_LOST, -signal.SIGKILL, cli.EXIT_TERMINATED
    assert supervise.verdict([]) == cli.EXIT_OK
    assert supervise.verdict([lost, killed]) == cli.EXIT_PEER_LOST
    assert supervise.verdict([lost, stopped]) == cli.EXIT_PEER_LOST
    assert supervise.verdict([lost, cli.EXIT_USER]) == cli.EXIT_USER
    assert supervise.verdict([lost, cli.EXIT_BUG]) == cli.EXIT_BUG
    assert supervise.verdict([cli.EXIT_PIPE]) == cli.EXIT_PIPE  # nobody reads: no restart mends that
    assert supervise.verdict([lost, cli.EXIT_INTERRUPTED]) == cli.EXIT_INTERRUPTED
    assert supervise.verdict([killed, cli.EXIT_BUG]) == cli.EXIT_PEER_LOST
    assert supervise.verdict([stopped, cli.EXIT_BUG]) == cli.EXIT_PEER_LOST
