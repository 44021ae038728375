"""One definition of the settings: the stack file's keys, the components' arguments and the documentation agree."""

import json
from pathlib import Path

import pytest
from pydantic.alias_generators import to_camel

from infra import arguments, component_args
from infra.inputs import is_input
from infra.plugin import NAME, Provider
from infra.settings import SECRET_FIELDS, config_keys

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schema() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(Provider().schema or "")
    return found


def test_the_arguments_are_generated_from_the_settings() -> None:
    path = ROOT / "infra" / "component_args.py"
    assert path.read_text() == arguments.source(), "run: python -m infra.arguments > infra/component_args.py"


@pytest.mark.parametrize("component", arguments.COMPONENTS)
def test_the_tables_in_the_documentation_are_generated_too(component: str) -> None:
    page = (ROOT / "docs" / "component.md").read_text()
    found = page.split(f"<!-- {component} arguments -->\n")[1].split("<!-- end -->")[0]
    assert found == "\n".join(arguments.table(component)) + "\n", "paste: python -m infra.arguments table"


@pytest.mark.parametrize("component", arguments.COMPONENTS)
def test_every_argument_is_a_setting_with_its_name_type_default_and_description(
    component: str, schema: dict[str, dict[str, object]]
) -> None:
    resource = schema["resources"][f"{NAME}:index:{component}"]
    assert isinstance(resource, dict)
    inputs = resource["inputProperties"]
    named = {to_camel(name): (name, field) for name, field in arguments.fields_of(component).items()}
    assert set(inputs) == set(named)
    assert not resource.get("requiredInputs")
    hints = getattr(component_args, f"{component}Args").__annotations__
    assert set(hints) == {name for name, _ in named.values()}
    for key, (name, field) in named.items():
        # The stack file's documentation is the same text; the default, which a schema cannot hold, follows it.
        assert str(inputs[key]["description"]).startswith(str(field.description)), key
        assert bool(inputs[key].get("plain")) != is_input(field), key
        if name not in SECRET_FIELDS:
            default = config_keys()[key]["default"]
            if default not in ("", 0, []) or isinstance(default, bool):
                shown = str(default).lower() if isinstance(default, bool) else str(default)
                assert str(inputs[key]["description"]).endswith(f"Default: {shown}."), key
