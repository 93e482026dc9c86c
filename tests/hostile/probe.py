"""Asks `/healthz` every 5 ms until its input ends; prints the milliseconds that each took.

A process of its own, so that nothing else keeps it waiting: what it sees is the server's event loop
and the machine's noise.
"""

import select
import socket
import sys
import time

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: probe\r\n\r\n"

took_ms = []
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        asked = time.perf_counter()
        connection.sendall(REQUEST)
        answer = b""
        while b'"ok"}' not in answer:
            answer += connection.recv(65536)
        took_ms.append((time.perf_counter() - asked) * 1000)
print(*(f"{ms:.2f}" for ms in took_ms), sep="\n")
