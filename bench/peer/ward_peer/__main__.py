"""Starts the workers, reports when all of them listen, and stops them."""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys

import uvicorn
import uvloop

from ward_peer.app import Peer

# Seconds that a shutdown waits for the current requests.
GRACE = 5
LAST_USED_EVERY = 60


def engine_of(database: str):
    kind, _, path = database.partition(":")
    if kind == "sqlite" and path:
        from ward_peer.sqlite import Sqlite

        return Sqlite(path)
    if kind in ("postgres", "postgresql"):
        from ward_peer.postgres import Postgres

        return Postgres(database)
    sys.exit(f"ward_peer: --database must be sqlite:PATH or postgres://…, not {database!r}")


def listeners(address: str, count: int) -> list[socket.socket]:
    """One socket per worker on one port. The kernel distributes connections, and only one worker wakes for each."""
    host, _, port = address.rpartition(":")
    sockets = []
    for _ in range(count):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((host, int(port)))
        port = one.getsockname()[1]
        sockets.append(one)
    return sockets


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, so that the engine can be closed after it."""

    def capture_signals(self):
        return contextlib.nullcontext()


async def work(engine, listener: socket.socket, ready: int, plain: bool) -> None:
    await engine.start()
    app = Peer(engine, plain)
    server = Server(
        uvicorn.Config(
            app.asgi(), loop="uvloop", http="httptools", ws="none", lifespan="off", interface="asgi3", access_log=False,
            log_level="warning", server_header=False, proxy_headers=False, backlog=2048,
            timeout_graceful_shutdown=GRACE, timeout_keep_alive=75,
        )  # fmt: skip
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)

    async def keep_last_used() -> None:
        while True:
            await asyncio.sleep(LAST_USED_EVERY)
            await app.store_last_used()

    keeping = loop.create_task(keep_last_used())
    serving = loop.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    os.write(ready, b".")
    await serving
    keeping.cancel()
    await app.store_last_used()
    await engine.stop()


def worker(arguments, listener: socket.socket, others: list[socket.socket], ready: int) -> int:
    # If the supervisor is killed, the kernel ends this process too (PR_SET_PDEATHSIG is 1).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for other in others:
        other.close()
    gc.collect()
    # The objects at this point are permanent, so a full collection need not visit them. Cycles in requests are rare.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    uvloop.run(work(engine_of(arguments.database), listener, ready, arguments.plain))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="ward_peer")
    parser.add_argument("--listen", default="127.0.0.1:8081", metavar="HOST:PORT")
    parser.add_argument("--database", required=True, metavar="sqlite:PATH|postgres://…")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--plain", action="store_true", help="serve every request through FastAPI with all its layers")
    arguments = parser.parse_args()

    engine_of(arguments.database).prepare()
    sockets = listeners(arguments.listen, arguments.workers)
    hears, says = os.pipe()
    children = set()
    for index, listener in enumerate(sockets):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(hears)
                code = worker(arguments, listener, sockets[:index] + sockets[index + 1 :], says)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.add(child)
    os.close(says)
    stopping = []

    def stop(*_) -> None:
        stopping.append(True)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        signal.alarm(GRACE + 5)

    def give_up(*_) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGALRM, give_up)

    heard = b""
    while len(heard) < len(children):
        one = os.read(hears, 1)
        if not one:
            break
        heard += one
    if len(heard) == len(children) and not stopping:
        host, port = sockets[0].getsockname()[:2]
        print(f"listening on http://{host}:{port}", flush=True)
    for listener in sockets:
        listener.close()

    failed = False
    while children:
        child, status = os.wait()
        children.discard(child)
        if os.waitstatus_to_exitcode(status) != 0 or not stopping:
            failed = True
            if not stopping:
                print("ward_peer: a worker ended, so the server stops", file=sys.stderr, flush=True)
                stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
