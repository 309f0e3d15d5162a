"""The health check of a container: who is asked, and what the engine is told."""

import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from config.settings import HttpSettings

PROBE = (sys.executable, "-m", "bot.web.probe")


class Daemon(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def daemon(status=200):
    """Something that answers every request with `status`, on a free port."""
    with HTTPServer(("127.0.0.1", 0), Daemon) as server:
        server.status, server.asked = status, []
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(port, **environment):
    environment = {**os.environ, "PALAVER_HTTP__PORT": str(port), **environment}
    return subprocess.run(PROBE, env=environment, check=False, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0"])
def test_a_daemon_that_answers_is_healthy(host):
    """Wherever it listens, as long as the probe can see where."""
    with daemon() as server:
        told = ask(server.server_port, PALAVER_HTTP__HOST=host)
    assert (told.returncode, told.stderr, server.asked) == (0, "", ["/healthz"])


def test_a_daemon_with_another_answer_is_not():
    """503 and its like are an answer, and no good one."""
    with daemon(503) as server:
        told = ask(server.server_port)
    assert (told.returncode, told.stdout) == (1, f"127.0.0.1:{server.server_port} answers 503\n")


def test_nobody_there_is_told_in_one_line():
    """An engine keeps what a health check prints: a reason, not a traceback."""
    with daemon() as server:
        port = server.server_port
    told = ask(port)
    assert told.returncode == 1
    assert told.stderr.startswith(f"no answer at 127.0.0.1:{port}: ")
    assert told.stderr.count("\n") == 1


def test_without_variables_the_default_address_is_asked():
    """The settings' default is what the probe believes."""
    http = HttpSettings()
    code = (
        "import http.client, bot.web.probe as probe\n"
        "class Connection:\n"
        "    def __init__(self, host, port, timeout): print(host, port)\n"
        "    def request(self, *_): raise OSError\n"
        "    def close(self): pass\n"
        "http.client.HTTPConnection = Connection\n"
        "probe.main()\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PALAVER_")}
    told = subprocess.run(
        (sys.executable, "-c", code), env=clean, check=False, capture_output=True, text=True, timeout=30
    )
    assert told.stdout == f"{http.host} {http.port}\n"
