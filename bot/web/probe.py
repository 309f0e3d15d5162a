"""`python -m bot.web.probe`: the health check of a container, exit 0 if the daemon beside it answers /healthz.

Owns the question alone. It is asked every few seconds, so it imports nothing of ours and nothing that takes long to load, and it
reads no file: an address that differs from the default is found in the variables only.
"""

import http.client
import os
import sys
from typing import Final

_NEAR: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_TIMEOUT_S: Final = 4.0


def main() -> int:
    """Ask. Returns the exit status."""
    host = os.environ.get("PALAVER_HTTP__HOST", "")
    host = _NEAR.get(host, host)
    port = os.environ.get("PALAVER_HTTP__PORT") or "8080"
    connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer at {host}:{port}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"{host}:{port} answers {status}\n")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
