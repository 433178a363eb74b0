"""A worker that talks to the oracle: `visit.py PORT PASS ROLE SECONDS`. Ignores TERM, so that only KILL ends it."""

import os
import signal
import socket
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
port, run, role, seconds = sys.argv[1:]
with socket.create_connection(("127.0.0.1", int(port))) as line:
    line.sendall(f"{run} {role} {os.getpid()}\n".encode())
    time.sleep(float(seconds))
