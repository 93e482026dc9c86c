"""Asks `/healthz` every 5 ms until its input ends; prints when it asked and how long that took.

A process of its own, so that nothing else keeps it waiting: what it sees is the server's event loop
and the machine's noise. Monotonic seconds and milliseconds, a line each.
"""

import select
import socket
import sys
import time

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: probe\r\n\r\n"

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        asked = time.monotonic()
        connection.sendall(REQUEST)
        answer = b""
        while b'"ok"}' not in answer:
            answer += connection.recv(65536)
        print(f"{asked:.6f} {(time.monotonic() - asked) * 1000:.3f}", flush=True)
