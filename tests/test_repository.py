"""A repository of several targets, some of which end their process: all others are examined."""

import json
import sys

import pytest
from repository import PLUGIN, examine, make

pytestmark = pytest.mark.slow

MODELS, DEATHS = 3, 3  # healthy, broken, broken; raises, kills the process, hangs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is read from /proc")
    folder = tmp_path_factory.mktemp("repository")
    assert make(folder, models=MODELS, deaths=DEATHS, timeout=20) == MODELS + DEATHS
    return folder


def test_check_examines_all_targets(folder):
    done, _, _ = examine(folder, "vaedoctor", "check", "--jobs", "2", "--format", "json")
    assert done.returncode == 2
    reports = json.loads(done.stdout)["reports"]
    ended = {r["target"].partition(":")[0]: r["exit_code"] for r in reports}
    assert ended == {
        "sample_not_reparameterized_healthy.py": 0,
        "raises_on_import.py": 2,
        "sample_not_reparameterized_broken.py": 1,
        "kl_sign_flipped_broken.py": 1,
        "kills_the_process.py": 2,
        "hangs.py": 2,
    }
    stops = [r["stop"]["message"] for r in reports if r["stop"]]
    assert "ZeroDivisionError" in stops[0]
    assert "SIGKILL" in stops[1]
    assert "no result after 20 s" in stops[2]


def test_pytest_examines_all_targets(folder):
    done, _, _ = examine(folder, "pytest", *PLUGIN, "--vaedoctor", "-n", "2", "-q")
    assert done.returncode == 1
    assert "2 failed" in done.stdout.splitlines()[-1]
    assert "3 errors" in done.stdout.splitlines()[-1]
    section = done.stdout.partition("= vaedoctor =")[2]
    assert "sample_not_reparameterized_healthy.py:Healthy: " in section
    assert "error[VAE302] sample_not_reparameterized_broken.py:" in section
    assert "error[VAE703] kl_sign_flipped_broken.py:" in section
    assert section.count("could not be examined") == 3
