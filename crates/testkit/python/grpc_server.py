"""A real gRPC server (grpcio) for tests: `test.Echo` with all four kinds of calls, and `grpc.health.v1.Health`.

    grpc_server.py NAME [--cert FILE --key FILE] [--no-health]

Says `listening address=IP:PORT`, `control address=IP:PORT`, then `ready`.

A message is JSON. A request may hold: `text` (comes back), `sleep` (seconds before the answer, or between messages),
`count` (messages of a stream), `size` (bytes of `pad` in each answer), `status` and `message` (the call ends with these;
in streams after the messages), `early` (end with the status before any message), `more` (in `bidi`: another message is to
come; grpcio ends the requests of a cancelled call as it ends those of a whole one, if it hears of their end first). An
answer holds `server`, `text`, `at` (its number), `remaining` (seconds of the deadline, or null), `metadata` (those of the call that begin with `x-`).

The control port takes lines: `health SERVICE STATUS` (`-` for the server as a whole), answered `done`.
"""

import argparse
import json
import signal
import socketserver
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Echo:
    def __init__(self, name):
        self.name = name

    def answer(self, context, request, at=0):
        remaining = context.time_remaining()
        metadata = {k: v for k, v in context.invocation_metadata() if k.startswith("x-")}
        return json.dumps({
            "server": self.name,
            "text": request.get("text", ""),
            "at": at,
            "remaining": remaining if remaining is not None and remaining < 1e9 else None,
            "metadata": metadata,
            "peer": context.peer(),
            "pad": "x" * request.get("size", 0),
        }).encode()

    def begin(self, method, context):
        """Says how the call goes; the answer's own words mark whether it was cancelled."""
        state = {"done": False}

        def ended():
            say(f"{'ended' if state['done'] else 'cancelled'} {method}")

        say(f"began {method}")
        if not context.add_callback(ended):
            ended()
        context.set_trailing_metadata((("x-served-by", self.name),))
        return state

    def end(self, state, context, request):
        state["done"] = True
        if "status" in request:
            code = next(code for code in grpc.StatusCode if code.value[0] == request["status"])
            context.set_code(code)
            context.set_details(request.get("message", ""))

    def unary(self, body, context):
        request = json.loads(body)
        state = self.begin("Unary", context)
        if request.get("sleep"):
            pause(context, request["sleep"])
        self.end(state, context, request)
        return self.answer(context, request)

    def server_stream(self, body, context):
        request = json.loads(body)
        state = self.begin("ServerStream", context)
        if not request.get("early"):
            for at in range(request.get("count", 3)):
                yield self.answer(context, request, at)
                if request.get("sleep") and not pause(context, request["sleep"]):
                    return
        self.end(state, context, request)

    def client_stream(self, bodies, context):
        state = self.begin("ClientStream", context)
        texts, last = [], {}
        for body in bodies:
            last = json.loads(body)
            texts.append(last.get("text", ""))
        self.end(state, context, last)
        return self.answer(context, {**last, "text": " ".join(texts)}, len(texts))

    def bidi(self, bodies, context):
        state = self.begin("Bidi", context)
        last, at = {}, 0
        for body in bodies:
            last = json.loads(body)
            yield self.answer(context, last, at)
            at += 1
        if not last.get("more"):
            self.end(state, context, last)


def pause(context, seconds):
    """Sleeps; false when the call is over before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not context.is_active():
            return False
        time.sleep(min(0.02, seconds))
    return True


def control(servicer):
    class Line(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                words = line.decode().split()
                if len(words) == 3 and words[0] == "health":
                    status = health_pb2.HealthCheckResponse.ServingStatus.Value(words[2])
                    servicer.set("" if words[1] == "-" else words[1], status)
                    self.wfile.write(b"done\n")
                else:
                    self.wfile.write(b"what?\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Line)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--no-health", action="store_true")
    args = parser.parse_args()
    echo = Echo(args.name)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=64),
        options=[("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 1000)],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {
        "Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(echo.server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(echo.client_stream),
        "Bidi": grpc.stream_stream_rpc_method_handler(echo.bidi),
    }),))
    servicer = health.HealthServicer()
    if not args.no_health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    if args.cert:
        with open(args.key, "rb") as key, open(args.cert, "rb") as cert:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    host, control_port = control(servicer)
    say(f"listening address=127.0.0.1:{port}")
    say(f"control address={host}:{control_port}")
    say("ready")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    server.stop(5).wait()


if __name__ == "__main__":
    main()
