"""Rules that hold for every test: nothing is skipped in silence, and generated cases do not depend on a clock.

`HYPOTHESIS_PROFILE=fuzz` (`make fuzz`) runs each property far longer than a change needs to.
"""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# No deadline: on a shared machine a slow example says nothing about the code under test.
settings.register_profile("check", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", settings.get_profile("check"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "check"))


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure: a machine without redis-server must not look like one where all is well."""
    if report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a skipped test proves nothing: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report
