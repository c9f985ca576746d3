"""What operators read is complete: every setting stands in README.md and config/.env.example."""

import re
from pathlib import Path

import pytest

from gateway.settings import TABLE, Setting, Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / "config" / ".env.example").read_text()


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_every_setting_stands_in_the_readmes_table_with_its_default(setting: Setting) -> None:
    rows = [row for row in README.splitlines() if row.startswith(f"| `{setting.name}`")]

    assert len(rows) == 1, f"README.md needs one row that begins with | `{setting.name}`"
    if "see below" in rows[0]:
        missing = [word for word in setting.default.split(",") if f"`{word}`" not in README]
        assert not missing, f"README.md says 'see below' and leaves out {missing}"
    else:
        assert setting.default in rows[0]


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_every_setting_stands_in_the_example_with_its_default(setting: Setting) -> None:
    name, default = setting.name, setting.default
    lines = re.findall(rf"^#? ?{name}=(.*)$", EXAMPLE, re.MULTILINE)

    assert lines, f"config/.env.example needs a line {name}={default}, commented out or not"
    assert lines[0].strip() == default


def test_neither_names_a_setting_that_does_not_exist() -> None:
    known = {setting.name for setting in TABLE}
    in_readme = set(re.findall(r"^\| `([A-Z][A-Z_]+)`", README, re.MULTILINE))
    in_example = set(re.findall(r"^#? ?([A-Z][A-Z_]+)=", EXAMPLE, re.MULTILINE))

    ours = {name for name in in_readme | in_example if name.startswith(("GATEWAY_", "QUOTA_"))}
    assert ours <= known


def test_the_example_is_a_valid_configuration(tmp_path: Path) -> None:
    values = dict(re.findall(r"^([A-Z][A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))

    Settings.from_env(values, base=tmp_path)
