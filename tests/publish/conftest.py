from tests.hub_server import hub  # noqa: F401
