"""A results folder for the tests of the report."""

import shutil

import pytest
from report.report_case import make_results


@pytest.fixture(scope="session")
def made_results(tmp_path_factory):
    """A results folder that no test changes."""
    return make_results(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def results(made_results, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(made_results, tmp_path / "run")
