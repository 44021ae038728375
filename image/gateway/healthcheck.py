"""`python -m image.gateway.healthcheck`: exits with 0 if the gateway in this container answers /health, else with 1.

For the container's health check: the slim image has no curl, and localhost may be ::1.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys


def main() -> int:
    """Send one request; returns the exit status."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("GATEWAY_PORT") or 8080), timeout=3)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"the gateway does not respond: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if status == 200 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m image.gateway.healthcheck",
        description="Exit with 0 if the gateway on this machine answers /health (GATEWAY_PORT, default 8080), else with 1.",
    )
    parser.parse_args()
    sys.exit(main())
