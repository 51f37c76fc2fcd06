"""A small real application for the demo: says hello, and has metrics. `python -m examples.application PORT`."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METRICS = (
    "# HELP demo_hellos_total Hellos said so far.\n"
    "# TYPE demo_hellos_total counter\n"
    "demo_hellos_total {count}\n"
    "# HELP demo_moods Moods of the application.\n"
    "# TYPE demo_moods gauge\n"
    'demo_moods{{mood="fine"}} 1\n'
)


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hellos = 0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            body = METRICS.format(count=Application.hellos)
        else:
            Application.hellos += 1
            body = "hello from the application\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet: the demo tells what happens."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    try:
        Server(("127.0.0.1", int(sys.argv[1])), Application).serve_forever()
    except KeyboardInterrupt:
        pass
