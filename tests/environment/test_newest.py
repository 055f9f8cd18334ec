"""The two ends of what transformers may be: both are tested, and nothing beyond them is taken."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version


def test_the_range_of_transformers_is_what_is_tested(repository: Path) -> None:
    """constraints.txt has the oldest version, `make newest` the newest."""
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    local = [Requirement(line) for line in project["optional-dependencies"]["local"]]
    (wanted,) = [one.specifier for one in local if one.name == "transformers"]
    pins = (repository / "constraints.txt").read_text("utf-8")
    (oldest,) = re.findall(r"^transformers==(\S+)$", pins, re.MULTILINE)
    script = (repository / "environment" / "newest" / "install.sh").read_text("utf-8")
    (newest,) = re.findall(r"^newest=(\S+)$", script, re.MULTILINE)
    assert wanted.contains(oldest)
    assert wanted.contains(newest)
    first, last = Version(oldest), Version(newest)
    assert not wanted.contains(f"{first.major}.{first.minor - 1}.99")
    assert not wanted.contains(f"{last.major}.{last.minor + 1}.0")
