from __future__ import annotations

from openapi_spec_validator import OpenAPIV31SpecValidator

from image.gateway import openapi
from image.gateway.routes import UPSTREAM
from tests.image.gateway.conftest import StartEngine, StartGateway


def test_the_document_is_openapi() -> None:
    OpenAPIV31SpecValidator(openapi.document()).validate()


async def test_it_names_the_paths_that_are_served_and_no_others(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(await start_engine())
    paths = openapi.document()["paths"]
    assert set(paths) == set((await gateway.info())["paths"])
    for path, operations in paths.items():
        (method,) = operations
        response = await gateway.client.request(method, path)
        assert str(response.status_code) in operations[method]["responses"]
        assert (method == "post") == (path in UPSTREAM)
