"""A provider that fails as it is told: it stands between the worker and the model stub, and lets through what it need not refuse."""

import collections
import hashlib
import http.client
import http.server
import json
import subprocess
import threading
import urllib.parse


def _error(status, kind, **headers):
    return status, headers, {"type": "error", "error": {"type": kind, "message": "as the test has it"}}


def _answer(text, stop_reason):
    content = [{"type": "text", "text": text}] if text else []
    usage = {"input_tokens": 50, "output_tokens": 20}
    return 200, {}, {
        "id": "msg_gate", "type": "message", "role": "assistant", "model": "stub", "content": content, "stop_reason": stop_reason, "usage": usage,
    }


# Words and statuses: "Errors" and "Handling stop reasons", Claude API docs.
ANSWERS = {
    "refused key": _error(401, "authentication_error"),
    "server error": _error(500, "api_error"),
    "overloaded": _error(529, "overloaded_error"),
    "rate limit": _error(429, "rate_limit_error", **{"retry-after": "1"}),
    "refusal": _answer("", "refusal"),
    "prose": _answer("I would rather not answer in JSON today.", "end_turn"),
}


class ModelGate:
    def __init__(self, model_stub):
        # A stub of its own: the stack's has faults by chance.
        self.stub = subprocess.Popen([model_stub, "--faults", "none"], stdout=subprocess.PIPE, text=True)
        self.upstream = urllib.parse.urlsplit(self.stub.stdout.readline().strip())
        # One of ANSWERS for every call; None asks the stub.
        self.fault = None
        # One of ANSWERS for calls whose messages hold a text.
        self.fault_of = {}
        self.revoked_keys = set()
        # Calls so far, all and by what was asked; and those that the stub answered.
        self.asked = 0
        self.asked_for = collections.Counter()
        self.answered = collections.Counter()
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                gate.asked += 1
                gate.asked_for[hashlib.sha256(body).hexdigest()] += 1
                fault = "refused key" if self.headers.get("x-api-key") in gate.revoked_keys else gate.fault
                if gate.fault_of and fault is None:
                    said = json.dumps(json.loads(body)["messages"])
                    fault = next((name for text, name in gate.fault_of.items() if text in said), None)
                status, headers, answer = gate.ask(self.path, self.headers, body) if fault is None else ANSWERS[fault]
                answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers, "content-length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ask(self, path, headers, body):
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port, timeout=30)
        passed = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection", "content-length")}
        connection.request("POST", path, body, passed)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status == 200:
            self.answered[hashlib.sha256(body).hexdigest()] += 1
        kept = {name: value for name, value in answer.getheaders() if name.lower() in ("content-type", "retry-after", "request-id")}
        return answer.status, kept, content

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.stub.kill()
        self.stub.wait()
