"""A plain TCP stream from rank 1 to rank 0, for `netlab.py --each`: rank 0 prints bytes and seconds."""

import os
import socket
import sys
import time

num_bytes = int(sys.argv[1])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))

if os.environ["RANK"] == "0":
    with socket.create_server(address) as server:
        connection = server.accept()[0]
        with connection:
            started = time.monotonic()
            received = 0
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
            print(received, time.monotonic() - started)
else:
    while True:
        try:
            connection = socket.create_connection(address)
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    with connection:
        connection.sendall(bytes(num_bytes))
