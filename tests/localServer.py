"""An HTTP server on this machine that has the faults of real ones."""
import http.server
import socket
import threading
import time


class Server(http.server.ThreadingHTTPServer):
    """Serves `data`; `faults` are taken one a request: None or a name below."""
    daemon_threads = True

    def __init__(self, data, faults=(), ranges=True):
        super().__init__(('127.0.0.1', 0), Handler)
        self.data, self.faults, self.ranges = data, list(faults), ranges
        self.tag, self.asked = '"one"', []
        self.url = f'http://127.0.0.1:{self.server_port}/weights.pth'
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that goes away is part of the tests

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, start = self.server, 0
        fault = server.faults.pop(0) if server.faults else None
        asked = self.headers.get('Range')
        server.asked.append(asked)
        if isinstance(fault, int):
            return self.send_error(fault)
        fits = self.headers.get('If-Range') in (None, server.tag)
        if asked and server.ranges and fits:
            start = int(asked.removeprefix('bytes=').rstrip('-'))
            if start >= len(server.data):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(server.data)}')
                return self.end_headers()
            self.send_response(206)
            given = start + 7 if fault == 'another part' else start
            self.send_header('Content-Range',
                             f'bytes {given}-{len(server.data) - 1}/{len(server.data)}')
        else:
            self.send_response(200)
        body = server.data[start:]
        self.send_header('ETag', server.tag)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if fault == 'cut off':
            self.wfile.write(body[:len(body) // 2])
        elif fault == 'reset':
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
            self.connection.close()
        elif fault == 'stalls':
            self.wfile.write(body[:300_000])
            self.wfile.flush()
            time.sleep(1.5)
        elif fault == 'slow':
            for i in range(0, len(body), 100_000):
                self.wfile.write(body[i:i + 100_000])
                self.wfile.flush()
                time.sleep(0.03)
        else:
            self.wfile.write(body)
