"""docs/settings.md is current, and complete."""

from pydantic import BaseModel

from plugin.settings import Settings
from plugin.settings_reference import TARGET, render


def test_the_page_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "run: python -m plugin.settings_reference --write"


def test_every_section_and_setting_is_on_it() -> None:
    page = render()
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, BaseModel):
            assert f"## {name}\n" in page
            assert all(f"| `{field}` |" in page for field in type(info.default).model_fields)
        else:
            assert f"| `{name}` |" in page
