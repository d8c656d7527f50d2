"""The process that runs of Python are forked from: the interpreter has started, and what most programs import is there.

It runs no line of a program and holds no test. For each run it makes the first process of a new process namespace, as a
sibling of its own, so that the helper is its parent; that one forks the process which confines itself by the system calls
it is told, and becomes the program.
"""

import os
import sys

folder, CLONE = sys.argv[1], int(sys.argv[2])
sys.path[:] = [path for path in sys.path if path != folder]

import _signal
import _socket
import atexit
import ctypes
import gc
import json
import struct

for name in ("bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "random", "re", "string", "typing"):
    try:
        __import__(name)
    except ImportError:
        pass
sys.path.insert(0, folder)
import codec

sys.path.remove(folder)

CLONE_NEWPID, CLONE_PARENT, SIGCHLD, PR_SET_PDEATHSIG, SIGKILL = 0x20000000, 0x8000, 17, 1, 9
SIGNALS = _signal.valid_signals()
# Where a process that becomes a program finds its descriptors until it is confined.
PROBLEM, RULES = 200, 201
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
codes = {}
for name in ("run.py", "serve.py", "judge.py"):
    with open(folder + "/" + name, "rb") as file:
        codes[name] = compile(file.read(), name, "exec")


def call(name, number, args):
    """A system call: numbers as they are, bytes in hexadecimal digits, a filter as a list of one such text."""
    kept = []

    def address(text):
        data = bytes.fromhex(text)
        kept.append(ctypes.create_string_buffer(data, len(data)))
        return ctypes.addressof(kept[-1]), len(data)

    def value(arg):
        if isinstance(arg, int):
            return ctypes.c_long(arg)
        if isinstance(arg, str):
            return ctypes.c_void_p(address(arg)[0])
        at, length = address(arg[0])
        return ctypes.c_void_p(address(struct.pack("@HP", length // 8, at).hex())[0])

    if libc.syscall(ctypes.c_long(number), *map(value, args)) < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def collect(program, status):
    """The first process of a namespace: its end is the end of all in it."""
    try:
        os.dup2(status, 0)
        os.closerange(1, 4096)
        while True:
            pid, code, usage = os.wait4(-1, 0)
            if pid == program:
                break
        cpu_us = int((usage.ru_utime + usage.ru_stime) * 1e6)
        os.write(0, struct.pack("=QQQ", code, cpu_us, usage.ru_maxrss * 1024))
    finally:
        os._exit(0)


def become(message, fds):
    """Confines this process. Nothing of the program runs when any step fails."""
    try:
        places = message["places"]
        for fd, place in zip(fds, places):
            os.dup2(fd, place)
        for first, last in ((3 + (3 in places), PROBLEM), (RULES + 1, 4096)):
            os.closerange(first, last)
        os.setsid()
        os.chdir(message["scratch"])
        for one in message["calls"]:
            call(*one)
        os.closerange(RULES, RULES + 1)
    except BaseException as error:
        os.write(PROBLEM, str(error).encode())
        os._exit(127)
    os.close(PROBLEM)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def fork(data, fds):
    """In the new first process, and below it: returns in the one that is the program."""
    try:
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
        # Signals from inside the namespace reach this process only through handlers, and Python has one.
        _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)
        message = json.loads(data)
        program = os.fork()
    except BaseException as error:
        os.write(fds[3], f"fork: {error}".encode())
        os._exit(127)
    if program:
        collect(program, fds[4])
    become(message, fds[:4] + fds[5:])
    return message


def serve():
    """One run after another; returns in processes that have become a program."""
    control = _socket.socket(fileno=3)
    control.send(b"ready")
    while True:
        data, rights, _, _ = control.recvmsg(1 << 18, _socket.CMSG_SPACE(32), _socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        fds = [fd for _, _, part in rights for fd in struct.unpack(f"@{len(part) // 4}i", part)]
        pid = libc.syscall(*map(ctypes.c_long, (CLONE, CLONE_NEWPID | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)))
        if pid == 0:
            control.detach()
            return fork(data, fds)
        answer = str(pid) if pid > 0 else "clone: " + os.strerror(ctypes.get_errno())
        for fd in fds:
            os.close(fd)
        control.send(answer.encode())


def leave(code):
    """Ends as an interpreter does, but for taking apart what the template had imported, which costs more than most runs."""
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    streams = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
    code = flush(streams, code)
    # Files that were never closed are written when their last owner goes.
    sys.modules["__main__"].__dict__.clear()
    gc.collect()
    os._exit(flush(streams, code))


def flush(streams, code):
    for stream in streams:
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException:
            code = code or 120
    return code


def exit_code(error):
    """The exit code for what a program ended with, after saying what there is to say."""
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


gc.collect()
gc.freeze()
message = serve()
sys.argv = message["argv"]
code = codes[os.path.basename(sys.argv[0])]
if code is codes["run.py"]:
    del sys.modules["codec"]
main = sys.modules["__main__"] = type(sys)("__main__")
main.__builtins__ = __builtins__
try:
    exec(code, main.__dict__)
    status = 0
except BaseException as error:
    status = exit_code(error)
leave(status)
