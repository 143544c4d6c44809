"""A real WebSocket server (Python's websockets) for tests: it sends back what it gets.

    ws_server.py NAME

Says `listening address=IP:PORT`, then `ready`; for each connection `opened PATH` and `closed CODE REASON`. The text `who`
is answered by NAME, `close CODE REASON` by that close, anything else by itself. At SIGHUP it closes every connection with
1001 `leaving`.
"""

import signal
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    name = sys.argv[1]
    opened = set()

    def leave():
        for connection in list(opened):
            connection.close(1001, "leaving")

    # Not in the handler itself: it may have interrupted whoever holds a connection's lock.
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=leave).start())

    def serve_one(connection):
        say(f"opened {connection.request.path}")
        opened.add(connection)
        try:
            for message in connection:
                if message == "who":
                    connection.send(name)
                elif isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(" ", 2)
                    connection.close(int(code), reason)
                else:
                    connection.send(message)
        except ConnectionClosed:
            pass
        opened.discard(connection)
        say(f"closed {connection.close_code} {connection.close_reason or ''}")

    with serve(serve_one, "127.0.0.1", 0, subprotocols=["chat.v2", "chat.v1"], max_size=None) as server:
        host, port = server.socket.getsockname()
        say(f"listening address={host}:{port}")
        say("ready")
        server.serve_forever()


if __name__ == "__main__":
    main()
