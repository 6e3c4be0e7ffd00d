"""Where a gateway listens: alone on the port, or as one of several that the kernel shares connections among.

With SO_REUSEPORT each gateway holds a socket of its own on the one port, so that a killed one takes only the connections with it that
were given to it already: no proxy stands before them that could be killed instead. On its own port a gateway answers for itself.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from holdfast.errors import PortInUse
from holdfast.settings import Settings


def listen(settings: Settings, number: int) -> list[socket.socket]:
    """The sockets of gateway ``number`` (from 1), not listening yet.

    Raises:
        PortInUse: another program holds one of the ports.
    """
    own = settings.own_gateway_ports
    made = [_bound(settings.host, settings.ports.gateway, shared=bool(own), setting="HOLDFAST_PORTS__GATEWAY")]
    if own:
        made.append(_bound(settings.host, own[number - 1], shared=False, setting="HOLDFAST_PORTS__GATEWAY_OWN"))
    return made


def addresses(sockets: Sequence[socket.socket]) -> str:
    """Host and port of each, for the log."""
    return ", ".join("{}:{}".format(*one.getsockname()[:2]) for one in sockets)


def _bound(host: str, port: int, *, shared: bool, setting: str) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        raise PortInUse(port=port, part="gateway", setting=setting) from error
    one.set_inheritable(True)
    return one
