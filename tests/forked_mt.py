"""`mt` in a process forked from one that has imported torch, as most of the time of a small command goes into that.

    python forked_mt.py                        forks, until its stdin ends; says first at which socket it is called
    python -IS forked_mt.py SOCKET ARGUMENT... stands for `python -m mt ARGUMENT...`

A command has the folder, environment, stdin, stdout and stderr of its caller, who passes SIGINT and SIGTERM on to it
and ends with its status. How `python -m mt` itself begins is for tests that really start it.
"""

import atexit
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile


def call(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = json.dumps([arguments, os.getcwd(), dict(os.environ)])
        socket.send_fds(server, [f"{asked}\n".encode()], [0, 1, 2])
        answers = server.makefile()
        command = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(command, number))
        status = int(answers.readline())
    return status if status >= 0 else 128 - status


def serve() -> None:
    import mt.train.loop
    import mt.translate.job  # noqa: F401

    folder = tempfile.mkdtemp(prefix="mt", dir="/tmp")  # the path of a socket must be short
    entrance = socket.socket(socket.AF_UNIX)
    entrance.bind(f"{folder}/socket")
    entrance.listen()
    os.write(1, f"{folder}/socket\n".encode())
    gc.freeze()  # else each command copies what its collector looks at
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    while sys.stdin not in select.select([entrance, sys.stdin], [], [])[0]:
        caller = entrance.accept()[0]
        if not os.fork():
            entrance.close()
            return answer(caller)
        caller.close()
    return shutil.rmtree(folder)


def answer(caller: socket.socket) -> None:
    """Fork once more: one becomes the command, the other tells the caller how that ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, streams, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    while not asked.endswith(b"\n"):
        asked += caller.recv(1 << 20)
    command = os.fork()
    if not command:
        caller.close()
        return become_command(streams, *json.loads(asked))
    for stream in streams:
        os.close(stream)
    caller.sendall(f"{command}\n".encode())
    caller.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])}\n".encode())
    os._exit(0)


def become_command(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["mt", *arguments]
    try:
        runpy.run_module("mt", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(int(end.code or 0))  # to take down all that is imported would copy it first


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(call(sys.argv[1], sys.argv[2:]))
    serve()
