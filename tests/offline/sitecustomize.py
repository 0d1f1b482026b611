"""Cuts the network for the tests: Python imports this at its start when the folder is on PYTHONPATH.

Only connections to this machine are let through, so that a test which needs the network fails here as it would on a
train.
"""

import ipaddress
import socket


def _leaves_the_machine(family, address):
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False  # AF_UNIX and its like
    host = address[0].partition("%")[0]  # fe80::1%eth0
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host != "localhost"


def _guarded(connect):
    def guard(self, address):
        if _leaves_the_machine(self.family, address):
            raise ConnectionRefusedError(f"the tests work offline, and this wants to connect to {address!r}")
        return connect(self, address)

    return guard


socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
