"""The tests have no network, in this process and in those that they start; this machine itself is reachable."""

import socket
import subprocess
import sys

import pytest

NOWHERE = ("192.0.2.1", 80)  # TEST-NET-1 (RFC 5737): nobody's address, should the block ever fail


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
@pytest.mark.parametrize("address", [NOWHERE, ("name.invalid", 80)])
def test_a_connection_out_of_the_machine_is_refused(method, address):
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="the tests work offline"):
        getattr(client, method)(address)


def test_create_connection_is_refused():
    with pytest.raises(ConnectionRefusedError, match="the tests work offline"):
        socket.create_connection(NOWHERE, timeout=1)


def test_a_child_process_is_cut_off_too():
    code = f"import socket; socket.create_connection({NOWHERE}, timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert "the tests work offline" in child.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_works(host):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port), timeout=5) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_unix_sockets_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # their names have to be short
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("here")
        server.listen()
        client.connect("here")
