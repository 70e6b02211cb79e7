"""`pytest --vaedoctor`: what is collected, the section in the terminal, the page.

Only loaded when it is asked for. A target is examined once, in a process of its own, however many
items and pytest-xdist workers there are.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from .agenda import baseline, requests, settings, timeout
from .baseline import without_known
from .config import ConfigError, select_rules
from .finding import Report
from .output import replace_file
from .project import find_project
from .pytest_items import PROPERTY, RUNS, Examined, Listed, RuleItem, TargetFile, listed
from .pytest_summary import summary
from .report.plain import plain
from .shelf import Shelf

_FOLDER = "vaedoctor_folder"  # how the controller tells its workers where reports are shared


class Gate:
    """The plugin of one run: what is configured, and the reports that were made."""

    def __init__(
        self, config: pytest.Config, given: Mapping[str, Any], *, collects: bool, html: Path | None
    ) -> None:
        self._html = html
        try:
            project = find_project(config.rootpath)
            judged = settings(project, given)
            asked = requests((), project, given) if collects else []
            self._known = baseline(project, given)
            rules = select_rules(judged.select, judged.ignore)
            limit = timeout(project, given)
        except ConfigError as error:
            raise pytest.UsageError(error.message) from None
        worker: Mapping[str, Any] = getattr(config, "workerinput", {})
        self._temporary = None if worker else tempfile.TemporaryDirectory(prefix="vaedoctor-")
        self._folder: str = self._temporary.name if self._temporary else worker[_FOLDER]
        asked = [{**request, **asdict(judged)} for request in asked]
        self._shelf = Shelf(Path(self._folder), asked, limit)
        self._listed = list(listed((r["target"] for r in asked), project.folder))
        self._examined = Examined(rules, self._report)
        self._reports: dict[int, Report] = {}

    def keep(self, report: Report) -> None:
        """Remember the report of a test of the user's for the page."""
        if self._html is not None:
            self._shelf.keep(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where reports are shared."""
        node.workerinput[_FOLDER] = self._folder

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """The targets that a file holds."""
        found = [one for one in self._listed if one.file == file_path]
        return self._collector(file_path, parent, found) if found else None

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> Iterator[None]:
        """Keep a target that is no test file from being imported because it was named."""
        module = yield
        patterns = parent.config.getini("python_files")
        is_test = any(fnmatch(module_path.name, pattern) for pattern in patterns)
        if is_test or all(one.file != module_path for one in self._listed):
            return module
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Add the targets outside of the folders of the tests, unless single tests were named."""
        if any("::" in arg or Path(arg).is_file() for arg in config.args):
            return
        there = {item.listed.index for item in items if isinstance(item, RuleItem)}
        missing: dict[Path, list[Listed]] = {}
        for one in self._listed:
            if one.index not in there:
                missing.setdefault(one.file, []).append(one)
        for file, found in missing.items():
            items.extend(session.genitems(self._collector(file, session, found)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Choose the item that speaks for its target when it cannot be examined."""
        speakers: dict[int, RuleItem] = {}
        for item in session.items:
            if isinstance(item, RuleItem):
                first = speakers.setdefault(item.listed.index, item)
                if item.code == RUNS and first.code != RUNS:
                    speakers[item.listed.index] = item
        for item in speakers.values():
            item.speaks = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Have the target examined before pytest looks for marks that skip the item."""
        if isinstance(item, RuleItem):
            item.prepare()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell what was found, in the words of the report, and write the page."""
        ended = (r for reports in terminalreporter.stats.values() for r in reports)
        carried = (getattr(r, "user_properties", ()) for r in ended)
        told = [json.loads(v) for pairs in carried for name, v in pairs if name == PROPERTY]
        lines = list(summary(told))
        if self._html is not None:
            as_html = importlib.import_module(f"{__package__}.report.as_html").as_html
            replace_file(self._html, as_html(self._shelf.reports()))
            lines.append(f"page: {self._html}")
        if lines:
            terminalreporter.section("vaedoctor")
        for line in lines:
            terminalreporter.line(line)

    def pytest_unconfigure(self) -> None:
        """End what still runs, and remove the shared folder."""
        self._shelf.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _report(self, index: int) -> Report:
        if index not in self._reports:
            self._reports[index] = without_known(self._shelf.report(index), self._known)
        return self._reports[index]

    def _collector(
        self, file: Path, parent: pytest.Collector, found: list[Listed]
    ) -> pytest.Collector:
        # pytest takes the name of a file as it is, into the terminal and into XML.
        shown = plain(file.as_posix())
        name: dict[str, Any] = {} if shown == file.as_posix() else {"nodeid": shown}
        made: pytest.Collector = TargetFile.from_parent(
            parent, path=file, found=found, examined=self._examined, **name
        )
        return made
