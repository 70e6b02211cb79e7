"""The page of the third-party models names every model that is tested, and no other."""

from __future__ import annotations

import re

import test_diffusers
import test_packages
import test_pythae
import test_quantizers
from published import PAGE, rows

TESTED = {
    "pythae": set(test_pythae.PYTHAE),
    "diffusers": {*test_diffusers.DIFFUSERS, *test_diffusers.VIDEO},
    "monai": set(test_packages.MONAI),
    "vector-quantize-pytorch": set(test_quantizers.MADE),
    "snac": {"SNAC"},
    "cornac": set(test_packages.CORNAC),
    "torch-geometric": set(test_packages.GEOMETRIC),
    "normflows": set(test_packages.NORMFLOWS),
    "deeptime": set(test_packages.DEEPTIME),
    "x-transformers": {"GPTVAE"},
    "pyro-ppl": set(test_packages.PYRO),
}


def test_the_page_lists_what_is_tested() -> None:
    assert {package: set(rows(package)) for package in TESTED} == TESTED


def test_the_page_counts_right() -> None:
    total = sum(map(len, TESTED.values()))
    assert f"{total} models of {len(TESTED)} packages" in PAGE.read_text()


def test_the_page_names_the_pinned_versions() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", _constraints(), flags=re.M))
    named = dict(re.findall(r"^### (\S+) (\S+)$", PAGE.read_text(), flags=re.M))
    assert named == {package: pins[package] for package in TESTED}


def test_every_finding_is_explained() -> None:
    for package in TESTED:
        for name, row in rows(package).items():
            assert all(code in row.why for code in row.found), f"{package} {name}"


def _constraints() -> str:
    return (PAGE.parents[1] / "constraints.txt").read_text()
