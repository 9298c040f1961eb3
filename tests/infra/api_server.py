"""A Kubernetes API server for tests: real HTTP on a free port, which can be told to be flaky.

What it cannot show: real schedulers, kubelets, admission plugins and API machinery.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

from tests.infra.api_requests import PAGE, TOKEN, Request
from tests.infra.store import Store


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that go away: what is on stderr is the command's."""

    def handle_error(self, *_: object) -> None:
        """Nothing."""


class ApiServer:
    """Runs on a free port; use as a context manager."""

    def __init__(self, namespace="lab", rules=None):
        """`rules`: those of a Role; None allows everything."""
        self.store, self.namespace, self.rules = Store(), namespace, rules
        self.asked = set()  # (verb, group, resource), as RBAC sees them
        self.logs = {}  # pod to [(time, line)]
        self.log_rest = ""  # what stands behind the last line of every log, as it is
        self.log_reads = []  # (pod, query)
        self.refusals = []  # (verb, resource, RefusalError), each for the first request that fits
        self.broken_groups = []  # aggregated APIs, as GROUP/VERSION, whose own server is down
        self.broken_asked = 0
        self.pages = 0  # answers still to be given as HTML, as a proxy does
        self.page, self.page_status = PAGE, 200
        self.paged = []  # verbs, or "log", whose next answer is given so
        self.cut_off = 0  # connections still to be closed without an answer
        self.watch_gone = 0  # watches still to be answered with HTTP 410
        self.cut_logs_after = []  # lines after which the next log streams lose their connection
        self.on_created = {}  # resource to function of the object
        self.closing = threading.Event()
        self._http = _Quiet(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, path, namespace="lab", token=TOKEN):
        cluster = {"name": "test", "cluster": {"server": self.url}}
        user = {"name": "someone", "user": {"token": token}}
        context = {"name": "test", "context": {"cluster": "test", "user": "someone", "namespace": namespace}}
        text = {"apiVersion": "v1", "kind": "Config", "current-context": "test", "clusters": [cluster]}
        text |= {"users": [user], "contexts": [context]}
        path.write_text(yaml.safe_dump(text))
        return path

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                if server.cut_off:
                    server.cut_off -= 1
                    self.close_connection = True
                    return
                Request(server, self, "GET").answer()

            def do_PATCH(self):
                Request(server, self, "PATCH").answer()

            def do_DELETE(self):
                Request(server, self, "DELETE").answer()

        return Handler
