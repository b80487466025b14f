"""Kills and stops at random moments, and damage: the short form of benchmarks/faults.py."""

from benchmarks import faults


def test_nothing_is_lost_that_may_not_be(capfd):
    assert faults.main(["--kills=2", "--stops=1", "--second-starts=1", "--flips=5"]) == 0
    output = capfd.readouterr().out
    assert "Nothing was lost that may not be." in output
    assert all(fault in output for fault in ("kill -9: ", "SIGTERM: ", "second start: ", "damage: "))
