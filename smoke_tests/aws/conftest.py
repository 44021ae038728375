"""The stack on AWS that is looked at; without one, nothing here is collected."""

from pathlib import Path

import pytest

from smoke_tests.aws.deployed import Deployed, on_aws
from smoke_tests.conformance import STASH


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out where the target is no stack on AWS."""
    ours = collection_path.parent == Path(__file__).parent and collection_path.suffix == ".py"
    return True if ours and not on_aws(config.stash[STASH].target) else None


@pytest.fixture(scope="session")
def deployed(pytestconfig: pytest.Config) -> Deployed:
    """The stack under test."""
    target = pytestconfig.stash[STASH].target
    return Deployed(str(target.stack), target.outputs, target.identity)
