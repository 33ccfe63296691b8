"""Makes a living process try system calls itself, thread by thread, as whoever had taken it over would.

inject.py PID [once] < calls > answers, both JSON; `once` is by the first thread alone. A call is [name, number, argument...]; an argument is a number, the text of
a path, or a list of bytes. An answer is what the kernel gave that thread: a value, or an errno below zero. Every thread is stopped where it
waits, made to run each call, and left as it was found.
"""
import ctypes
import json
import os
import signal
import sys
import time

SEIZE, INTERRUPT, DETACH, GETREGS, SETREGS, STEP = 0x4206, 0x4207, 17, 12, 13, 9
WALL = 0x40000000
SYSCALL = b"\x0f\x05"
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs "
        "gs").split()]


def ptrace(request, thread, data=None):
    if libc.ptrace(request, thread, None, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request} of {thread}")


def stopped(thread):
    status = os.waitpid(thread, WALL)[1]
    if not os.WIFSTOPPED(status):
        raise SystemExit(f"thread {thread} ended: {status:#x}")
    return os.WSTOPSIG(status)


class Thread:
    """A thread that stands still in a system call: the instruction before its next one is `syscall`."""

    def __init__(self, thread, memory):
        self.thread, self.memory, self.found = thread, memory, Registers()
        ptrace(SEIZE, thread)
        while True:
            ptrace(INTERRUPT, thread)
            stopped(thread)
            ptrace(GETREGS, thread, ctypes.addressof(self.found))
            self.code = self.found.rip - len(SYSCALL)
            if os.pread(memory, len(SYSCALL), self.code) == SYSCALL:
                return
            ptrace(7, thread)  # PTRACE_CONT, until it waits again
            time.sleep(0.01)

    def call(self, number, *arguments):
        registers = Registers.from_buffer_copy(self.found)
        # Below what the function that waits may use of its stack.
        place = self.found.rsp - 8192
        values = []
        for argument in arguments:
            if isinstance(argument, (str, list)):
                given = argument.encode() + b"\0" if isinstance(argument, str) else bytes(argument)
                os.pwrite(self.memory, given, place)
                values.append(place)
                place += len(given) + 15 & ~15
            else:
                values.append(argument % 2**64)
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), values + [0] * (6 - len(values))):
            setattr(registers, name, value)
        # orig_rax below zero: the call that it waited in is not begun again before ours.
        registers.rip, registers.rax, registers.orig_rax = self.code, number, 2**64 - 1
        ptrace(SETREGS, self.thread, ctypes.addressof(registers))
        while True:
            ptrace(STEP, self.thread)
            if stopped(self.thread) == signal.SIGTRAP:
                ptrace(GETREGS, self.thread, ctypes.addressof(registers))
                if registers.rip == self.code + len(SYSCALL):
                    return ctypes.c_longlong(registers.rax).value

    def leave(self):
        ptrace(SETREGS, self.thread, ctypes.addressof(self.found))
        ptrace(DETACH, self.thread)


def main():
    pid, calls, answers = int(sys.argv[1]), json.load(sys.stdin), {}
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads[:1] if "once" in sys.argv else threads:
        tried = Thread(int(thread), memory)
        try:
            answers[thread] = {name: tried.call(*rest) for name, *rest in calls}
        finally:
            tried.leave()
    json.dump(answers, sys.stdout)


main()
