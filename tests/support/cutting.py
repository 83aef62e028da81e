"""A server's address behind which answers to commits get lost: a real proxy before a real PostgreSQL."""

import contextlib
import socket
import threading
from collections.abc import Iterator

BYTES = 1 << 16


class CuttingProxy:
    """Passes connections on to a server, and cuts some after a commit, before its answer.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self.commits = 0
        """Commits that were passed on."""
        self.lost = 0
        """Those whose answer was not."""
        self.every = 0
        """The answer to each of so many commits is lost; 0 for none."""
        self._server = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            cut = threading.Event()
            threading.Thread(target=self._answer, args=(server, client, cut), daemon=True).start()
            while asked := client.recv(BYTES):
                if b"COMMIT" in asked and self._is_next():
                    cut.set()
                server.sendall(asked)

    def _is_next(self) -> bool:
        with self._lock:
            self.commits += 1
            lost = bool(self.every) and self.commits % self.every == 0
            self.lost += lost
            return lost

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(BYTES):
                if cut.is_set():
                    break
                client.sendall(answer)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """A proxy before a server of this machine."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
