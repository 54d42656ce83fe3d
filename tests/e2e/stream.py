"""Plain TCP streams from all other ranks to rank 0, for `netlab.py --each`: rank 0 prints bytes and seconds."""

import os
import select
import socket
import sys
import time

num_bytes = int(sys.argv[1])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))


def receive_all() -> None:
    with socket.create_server(address) as server:
        connections = [server.accept()[0] for _ in range(int(os.environ["WORLD_SIZE"]) - 1)]
    for connection in connections:
        connection.sendall(b"x")  # all are here: begin
    started = time.monotonic()
    received = 0
    while connections:  # side by side: what is not read would not be sent either
        for connection in select.select(connections, [], [])[0]:
            chunk = connection.recv(1 << 20)
            received += len(chunk)
            if not chunk:
                connections.remove(connection)
                connection.close()
    print(received, time.monotonic() - started)


def send() -> None:
    with connected() as connection:
        connection.recv(1)
        connection.sendall(bytes(num_bytes))


def connected() -> socket.socket:
    while True:
        try:
            return socket.create_connection(address)
        except ConnectionRefusedError:
            time.sleep(0.01)


if os.environ["RANK"] == "0":
    receive_all()
else:
    send()
