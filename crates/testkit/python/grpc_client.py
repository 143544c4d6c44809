"""A real gRPC client (grpcio) for tests, of the service `test.Echo` of grpc_server.py.

    grpc_client.py IP:PORT [--ca FILE] [--name NAME] [--at-once] CALLS

CALLS is a list in JSON; they run one after another, or `--at-once`, on one channel: one connection. A call has `kind`
(`unary`, `server_stream`, `client_stream`, `bidi`), `requests` (messages as grpc_server.py reads them; with `times` their
text is repeated), and maybe
`method` (instead of that of the kind), `timeout` (seconds), `metadata`, `cancel_after` (answers; then the client cancels),
`hold` (seconds between two messages of a client's stream). A message of `bidi` is sent when the answer to the one before
has come.

Each call gives a line in JSON: `at` (its place), `code`, `details`, `answers`, `initial`, `trailing`, `took`; and each
answer of a stream, as it comes, a line `answer AT NUMBER`.
"""

import argparse
import json
import queue
import sys
import threading
import time

import grpc

METHODS = {
    "unary": "Unary",
    "server_stream": "ServerStream",
    "client_stream": "ClientStream",
    "bidi": "Bidi",
}
LIMIT = 30
lock = threading.Lock()


def say(line):
    with lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def pairs(metadata):
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def encoded(request):
    times = request.get("times", 1)
    return json.dumps({**request, "text": request.get("text", "") * times}).encode()


def messages(call, more):
    for number, request in enumerate(call["requests"]):
        if number > 0 and call.get("hold"):
            time.sleep(call["hold"])
        if number > 0 and more is not None and not more.get(timeout=LIMIT):
            return
        yield encoded(request)


def make(channel, at, call):
    kind = call["kind"]
    path = "/test.Echo/" + call.get("method", METHODS[kind])
    kwargs = {
        "timeout": call.get("timeout", LIMIT),
        "metadata": list(call.get("metadata", {}).items()),
    }
    answers = []
    began = time.monotonic()
    running = None
    try:
        if kind == "unary":
            running = channel.unary_unary(path).future(encoded(call["requests"][0]), **kwargs)
            answers.append(json.loads(running.result()))
        elif kind == "client_stream":
            running = channel.stream_unary(path).future(messages(call, None), **kwargs)
            answers.append(json.loads(running.result()))
        else:
            more = queue.Queue()
            if kind == "bidi":
                running = channel.stream_stream(path)(messages(call, more), **kwargs)
            else:
                running = channel.unary_stream(path)(encoded(call["requests"][0]), **kwargs)
            for answer in running:
                answers.append(json.loads(answer))
                say(f"answer {at} {len(answers)}")
                cancels = call.get("cancel_after") == len(answers)
                if cancels:
                    running.cancel()
                more.put(not cancels)
    except (grpc.RpcError, grpc.FutureCancelledError):
        pass
    took = time.monotonic() - began
    code = running.code()
    say(json.dumps({
        "at": at,
        "code": code.name if code else None,
        "details": running.details(),
        "answers": answers,
        "initial": pairs(running.initial_metadata()),
        "trailing": pairs(running.trailing_metadata()),
        "took": took,
    }))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--ca")
    parser.add_argument("--name")
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("calls")
    args = parser.parse_args()
    options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    if args.name:
        options.append(("grpc.ssl_target_name_override" if args.ca else "grpc.default_authority", args.name))
    if args.ca:
        with open(args.ca, "rb") as ca:
            credentials = grpc.ssl_channel_credentials(root_certificates=ca.read())
        channel = grpc.secure_channel(args.target, credentials, options=options)
    else:
        channel = grpc.insecure_channel(args.target, options=options)
    calls = list(enumerate(json.loads(args.calls)))
    if args.at_once:
        threads = [threading.Thread(target=make, args=(channel, at, call)) for at, call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        for at, call in calls:
            make(channel, at, call)
    channel.close()
    say("done")


if __name__ == "__main__":
    main()
