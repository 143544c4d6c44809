"""A real WebSocket client (Python's websockets) for tests.

    ws_client.py URL [--ca FILE] [--connections N] [--until-told]

On each of N connections: agrees on a protocol, sends texts and bytes of many sizes and a text in fragments, checks what
comes back, pings, and closes with 4000 `done`; before that it has the server named. Says `served NAME` for each, then
`done`; ends with 1 at anything unexpected.
With `--until-told` it says `served NAME`, then sends a text ten times a second and says `echo` when it comes back, until
the server closes: `told CODE REASON`.
"""

import argparse
import ssl
import sys
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20]


def check(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: {found!r:.200} instead of {expected!r:.200}")


def talk(url, context):
    arguments = {"ssl": context, "server_hostname": "localhost"} if context else {}
    with connect(url, subprotocols=["chat.v1"], max_size=None, proxy=None, **arguments) as connection:
        check(connection.subprotocol, "chat.v1", "the protocol")
        connection.send("who")
        print("served", connection.recv(30), flush=True)
        for size in SIZES:
            text = "\u00fc" * size
            connection.send(text)
            check(connection.recv(30), text, f"a text of {size}")
            data = bytes(at * 7 % 256 for at in range(min(size, 5000))) * (max(size // 5000, 1) if size else 1)
            connection.send(data)
            check(connection.recv(30), data, f"bytes of {size}")
        connection.send(iter(["in ", "three ", "pieces"]))
        check(connection.recv(30), "in three pieces", "fragments")
        check(connection.ping(b"are you there").wait(30), True, "a pong")
        connection.close(4000, "done")


def stay(url):
    with connect(url, subprotocols=["chat.v1"], proxy=None) as connection:
        connection.send("who")
        print("served", connection.recv(30), flush=True)
        try:
            while True:
                connection.send("hello")
                check(connection.recv(30), "hello", "an echo")
                print("echo", flush=True)
                time.sleep(0.1)
        except ConnectionClosed as closed:
            told = closed.rcvd
            print("told", told.code, told.reason, flush=True) if told else print("cut", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--ca")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--until-told", action="store_true")
    args = parser.parse_args()
    if args.until_told:
        stay(args.url)
        return
    context = ssl.create_default_context(cafile=args.ca) if args.ca else None
    for _ in range(args.connections):
        talk(args.url, context)
    print("done")


if __name__ == "__main__":
    main()
