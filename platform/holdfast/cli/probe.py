"""Small looks at a process from outside: does its address answer, is a port free, what did it log last."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx2


def answers(url: str, *, timeout_s: float = 2.0) -> bool:
    """Whether an address answers at all well: 2xx, 3xx, or a request for a key (401, 403)."""
    try:
        status = httpx2.get(url, timeout=timeout_s, trust_env=False).status_code
    except httpx2.HTTPError:
        return False
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
