"""The stack on AWS under test. Without one, no test of this folder is collected."""

from pathlib import Path

import pytest

from smoke_tests.aws.deployed import Deployed, on_aws
from smoke_tests.conformance import STASH


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Deselect these tests if the target is not a stack on AWS."""
    ours = collection_path.parent == Path(__file__).parent and collection_path.suffix == ".py"
    return True if ours and not on_aws(config.stash[STASH].target) else None


@pytest.fixture(scope="session")
def deployed(pytestconfig: pytest.Config) -> Deployed:
    """The stack under test."""
    target = pytestconfig.stash[STASH].target
    return Deployed(str(target.stack), target.outputs, target.identity)
