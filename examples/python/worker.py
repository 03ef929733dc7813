"""A pinmesh worker in Python. `serve` is all of the protocol; handlers are plain functions.

    python worker.py --backend tcp://127.0.0.1:5556

Needs pyzmq and msgpack. One process is one worker: start one for each CPU, pinned by `taskset -c`.
PROTOCOL.md describes every command. Left out: RECALL and CANCEL, all but harmless where only a few
tasks are held, and the announcement of a long silence, which slow links need for large results.
"""

import argparse
import os
import secrets
import signal
import statistics
import sys
import time
from collections import deque

import keys
import msgpack
import zmq

HELLO, WELCOME, REFUSED, NO_SESSION, HEARTBEAT, GOODBYE, ACK, WINDOW = range(1, 9)
TASK, DONE, READY, DRAIN = 32, 33, 34, 37
WORKER, OK, FAILED, MSGPACK, TEXT = 2, 0, 1, 1, 4
HELD_TASKS, HELD_BYTES, MIB = 4, 8 << 20, 1 << 20


def serve(backend, services, key=None, broker_key=None):
    """Serves until SIGTERM: finishes what it holds, gets that acknowledged, and returns."""
    worker, context, pause = Worker(services), zmq.Context(), 0.1
    signal.signal(signal.SIGTERM, worker.leave)
    signal.signal(signal.SIGALRM, overrun)
    while not worker.is_leaving:
        # A session is one socket: each gets a new one.
        socket = keys.dealer(context, backend, key, broker_key)
        was_open = worker.session(socket)
        socket.close(linger=1000)
        pause = 0.1 if was_open else min(2 * pause, 5.0)
        time.sleep(0 if worker.is_leaving else pause * secrets.SystemRandom().uniform(0.5, 1))
    context.term()


class Worker:
    def __init__(self, services):
        self.services, self.names = services, list(services)
        self.id = os.urandom(16)  # for the life of the process, over all its sessions
        self.ends = deque()  # of each DONE without ACK: the attempt as READY lists it, the message
        self.is_leaving = False

    def leave(self, *_):
        self.is_leaving = True

    def session(self, socket):
        """Serves until the session ends; returns whether it was ever open."""

        def send(*command):
            socket.send(msgpack.packb(command))

        welcome, waiting, window = None, deque(), HELD_TASKS
        nonce, acked, sequence, silence_max = secrets.randbits(63), 0, 0, 3.0
        heard = beat = time.monotonic()
        send(HELLO, 1, 1, WORKER, self.id, f"worker.py@{os.uname().nodename}", nonce, 0)
        while True:
            # Before a task only a look; with nothing to run, until something comes.
            while socket.poll(0 if waiting else 100):
                heard = time.monotonic()
                first, *frames = socket.recv_multipart()
                unpacker = msgpack.Unpacker()
                unpacker.feed(first)
                for op, *fields in unpacker:
                    if op == WELCOME and fields[1] == nonce:
                        welcome = fields
                        silence_max = fields[5] * fields[3] / 1e9
                        held = [attempt for attempt, _ in self.ends]
                        send(READY, None, 0, 1, self.names, [], window, HELD_BYTES, held, 0, 1)
                        for _, message in self.ends:  # what the last session could not bring over
                            socket.send_multipart(message)
                    elif op == TASK:
                        if not isinstance(fields[11], bytes):  # a long payload has its own frames
                            fields[11] = b"".join(frames)
                        waiting.append((time.perf_counter_ns(), fields))
                    elif op == ACK:  # "I have taken the first n of this session"
                        while acked < fields[0] and self.ends:
                            self.ends.popleft()
                            acked += 1
                    elif op == DRAIN:
                        self.leave()
                    elif op in (REFUSED, NO_SESSION, GOODBYE):
                        print(f"session over: {op} {fields}", file=sys.stderr)
                        return welcome is not None  # what waits goes to another worker

            if self.is_leaving and welcome and window:
                window = 0
                send(WINDOW, 0, 0)
            if waiting:
                self.ends.append(self.run(welcome, *waiting.popleft()))
                socket.send_multipart(self.ends[-1][1])
                heard = time.monotonic()  # nobody listened while the handler ran
            elif self.is_leaving and not (welcome and self.ends):
                send(GOODBYE)
                return True

            now = time.monotonic()
            if now - heard > silence_max:
                print(f"session over: no word for {silence_max} s", file=sys.stderr)
                return welcome is not None
            if welcome and now - beat >= welcome[3] / 1e9:
                beat, sequence = now, sequence + 1
                send(HEARTBEAT, sequence, None)

    def run(self, welcome, received, fields):
        """Runs a task; returns the attempt as READY lists it and the message that tells its end."""
        task, dispatch, client, request, submission, service, _ = fields[:7]
        deadline_ns, max_runtime_ns, content_type, _, payload = fields[7:12]
        epoch, payload_bytes_max = welcome[2], welcome[8]
        started = time.perf_counter_ns()
        signal.setitimer(signal.ITIMER_REAL, max_runtime_ns / 1e9)  # nobody else watches over us
        try:
            if deadline_ns is not None and started - received > deadline_ns:
                raise TimeoutError("the deadline passed before the start")
            if content_type != MSGPACK:
                raise TypeError(f"content type {content_type}: this worker takes MessagePack (1)")
            name = self.names[service] if isinstance(service, int) else service
            output = msgpack.packb(self.services[name](msgpack.unpackb(payload)))
            if len(output) > payload_bytes_max:
                raise ValueError(f"{len(output)} bytes, the broker takes {payload_bytes_max}")
            status = OK
        except Exception as error:  # whatever it is, it is this task's and not the worker's end
            status, content_type = FAILED, TEXT
            output = f"{type(error).__name__}: {error}".encode()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        ended = time.perf_counter_ns()
        frames = []
        if len(output) >= 32 * 1024:  # long ones travel in frames of their own
            frames = [output[at : at + MIB] for at in range(0, len(output), MIB)]
            output = [1, len(frames), sum(map(len, frames))]
        times = (ended - received, ended - started)
        done = msgpack.packb((DONE, epoch, task, dispatch, status, *times, content_type, output))
        return [epoch, task, dispatch, client, request, submission, 2], [done, *frames]


def overrun(*_):
    raise TimeoutError("ran longer than its max runtime")


def summary(numbers):
    mean, stdev = statistics.fmean(numbers), statistics.stdev(numbers)
    return {"mean": mean, "median": statistics.median(numbers), "stdev": stdev}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves `summary` of a list of numbers.")
    parser.add_argument("--backend", default="tcp://127.0.0.1:5556", help="the broker")
    keys.add_arguments(parser)
    args = parser.parse_args()
    serve(args.backend, {"summary": summary}, args.key, args.broker_key)
