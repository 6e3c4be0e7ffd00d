"""Small looks at a process from outside: does its address answer, is a port free, what did it log last."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit


def answers(url: str, *, timeout_s: float = 2.0) -> bool:
    """Whether an address answers at all well: 2xx, 3xx, or a request for a key (401, 403)."""
    parts = urlsplit(url)
    # The standard library's client: an httpx2 client loads certificates first, which costs more than the whole request.
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status < 400 or status in (401, 403)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def log_tail(path: Path, *, line_count: int = 3) -> str:
    """The last lines of a log that say something, joined by ` | `."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "(nothing was logged)"
    said = [line.strip() for line in lines if line.strip()]
    return " | ".join(line[-300:] for line in said[-line_count:]) or "(nothing was logged)"
