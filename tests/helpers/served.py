"""A folder served over HTTP on this machine."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not write what it is asked."""

    def log_message(self, *_):
        """Nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `folder` while the block runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Strange(http.server.BaseHTTPRequestHandler):
    """A server that answers as `answer` says."""

    answer = ""

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802, the name is http.server's
        if self.answer.startswith("to "):
            self.send_response(302)
            self.send_header("Location", self.answer.removeprefix("to "))
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()  # no Content-Length
        sent = 0
        try:
            while sent < 2**26:
                sent += self.wfile.write(bytes(2**16))
        except OSError:
            type(self).answer = str(sent)
