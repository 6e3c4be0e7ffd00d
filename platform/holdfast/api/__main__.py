"""``python -m holdfast.api``: the control plane as a process."""

from __future__ import annotations

import sys

import uvicorn

from holdfast import bootstrap
from holdfast.api.app import build
from holdfast.api.keys import ensure_admin_key
from holdfast.api.protection import is_loopback
from holdfast.bootstrap import home as bootstrap_home
from holdfast.errors import HoldfastError, RequestInvalid
from holdfast.settings import Settings, read_settings

FLAG = "--listen-beyond-loopback"


def check_host(settings: Settings, arguments: list[str]) -> None:
    """Refuse an address that others can reach, unless it was asked for on the command line.

    Raises:
        RequestInvalid: naming the setting and the flag.
    """
    if not is_loopback(settings.host) and FLAG not in arguments:
        raise RequestInvalid(
            place="HOLDFAST_HOST",
            problem=f"{settings.host!r} is not a loopback address, and keys would travel unencrypted",
            remedy=f"listen on 127.0.0.1 behind a proxy that ends TLS, or start with {FLAG}",
        )


def main(arguments: list[str]) -> int:
    """Serve until told to stop. The exit code is 0, or 1 after a message that says what to do."""
    try:
        settings = read_settings()
        check_host(settings, arguments)
        bootstrap_home.make_home(settings)
        house = bootstrap.for_api(settings)
        ensure_admin_key(house, settings.folder / "keys")
    except HoldfastError as error:
        print(error, file=sys.stderr)  # noqa: T201  the process ends with its one message
        return 1
    uvicorn.run(
        build(house, settings), host=settings.host, port=settings.ports.api, log_level="warning", server_header=False,
        proxy_headers=False, timeout_keep_alive=15, limit_concurrency=200, h11_max_incomplete_event_size=64 << 10,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
