#!/usr/bin/env python3
"""A pinmesh worker without a supervisor: it answers with the payload's bytes reversed. A task is run as soon as it is read:
all that it ever holds are ends that are not acknowledged, and RECALL and CANCEL always come too late."""
import argparse, os, random, signal, socket, sys, time
from collections import deque
from enum import IntEnum
import msgpack, zmq

Op = IntEnum("Op", dict(HELLO=1, WELCOME=2, REFUSED=3, NO_SESSION=4, HEARTBEAT=5, GOODBYE=6, ACK=7, WINDOW=8, SERVICE=9,
                        CANCEL=17, TASK=32, DONE=33, READY=34, DRAIN=37, RECALL=50))
MIB, WINDOW_TASKS, WINDOW_BYTES = 1 << 20, 128, 8 << 20

class Over(Exception):
    """The session has ended. (why, code of the REFUSED that we owe the broker or None)"""

def encode(command):
    if not isinstance(payload := command[-1], bytes) or len(payload) < 32768:
        return [msgpack.packb(command)]
    frames = [payload[i:i + MIB] for i in range(0, len(payload), MIB)]
    return [msgpack.packb([*command[:-1], [1, len(frames), len(payload)]]), *frames]

def payload_of(field, frames):
    body = field if isinstance(field, bytes) else b"".join(frames[1:])
    if body is not field and field[:3] != [1, len(frames) - 1, len(body)]:
        raise Over("frames and payload do not agree", 4)
    return body

class Worker:
    def __init__(self, service):
        self.service, self.peer_id, self.pause, self.leaving, self.announced = service, os.urandom(16), 0.1, False, False
        self.ends = deque()  # (attempt, [client_id, request_id, submission], DONE) until ACK

    def session(self, sock):
        """From HELLO to GOODBYE, or to Over."""
        self.sock, self.epoch, self.nonce, self.heartbeat, self.limit = sock, None, random.getrandbits(64), 1.0, 3.0
        self.acked = self.beats = self.echoed = self.next_beat = self.grace = quiet = 0
        self.barrier, before = None, time.monotonic()
        self.send([Op.HELLO, 1, 1, 2, self.peer_id, f"worker.py@{socket.gethostname()}", self.nonce, 0])
        while self.epoch is not None or self.ends or not self.leaving:
            heard, timeout = False, min(200, self.heartbeat * 200)
            while sock.poll(0 if heard else timeout):  # read it empty before judging
                self.take(sock.recv_multipart())
                heard = True
            now = time.monotonic()  # in a step longer than a heartbeat this process did not run
            quiet = 0 if heard and self.epoch is not None else quiet + min(now - before, self.heartbeat)
            before = now
            if quiet > self.limit and now > self.grace:
                raise Over("silence", None)
            if self.epoch is None:
                continue
            if now >= self.next_beat:
                self.beat()
            if self.leaving and self.barrier is None:
                self.send([Op.WINDOW, 0, 0])
                self.barrier = self.beat()  # its echo comes behind the last TASK of the old window
            elif self.leaving and self.echoed >= self.barrier and not self.ends:
                return self.send([Op.GOODBYE])

    def send(self, command):
        frames = encode(command)
        if (size := sum(map(len, frames[1:]))) > MIB:
            self.beat(size * 10**9 // 262_144)
        self.sock.send_multipart(frames)

    def beat(self, silence_ns=None):
        self.beats, now = self.beats + 1, time.monotonic()
        self.next_beat, self.grace = now + self.heartbeat, max(self.grace, now) + (silence_ns or 0) / 1e9
        self.send([Op.HEARTBEAT, self.beats, silence_ns])
        return self.beats

    def take(self, frames):
        commands = msgpack.Unpacker(strict_map_key=False)
        commands.feed(frames[0])
        for command in commands:
            match command:
                case [Op.WELCOME, _, nonce, int(epoch), int(heartbeat), _, int(liveness), *_]:
                    if nonce == self.nonce and self.epoch is None:
                        self.epoch, self.heartbeat, self.limit = epoch, heartbeat / 1e9, liveness * heartbeat / 1e9
                        self.ready()
                case [Op.REFUSED | Op.NO_SESSION | Op.GOODBYE as op, *why]:
                    raise Over(f"{Op(op).name} {why}", None)
                case [int(op), *_] if self.epoch is None or op >= 128 or op in (Op.SERVICE, Op.RECALL, Op.CANCEL):
                    pass
                case [Op.HEARTBEAT, int(sequence), None | int() as silence_ns, *_]:  # an echo: not to be echoed again
                    self.echoed, self.pause = max(self.echoed, sequence), 0.1
                    self.grace = max(self.grace, time.monotonic() + (silence_ns or 0) / 1e9)
                case [Op.ACK, int(n), *_]:
                    while self.acked < n and self.ends:
                        self.ends.popleft()
                        self.acked += 1
                case [Op.TASK, int(task), int(dispatch), client, request, submission, _, _, _, _, _, _, payload, *_]:
                    attempt, start = (self.epoch, task, dispatch), time.monotonic_ns()
                    if all(attempt != ended for ended, *_ in self.ends):
                        output = payload_of(payload, frames)[::-1]
                        spent = time.monotonic_ns() - start
                        self.ends.append((attempt, [client, request, submission], [Op.DONE, *attempt, 0, spent, spent, 0, output]))
                        self.send(self.ends[-1][2])
                case [Op.DRAIN, *_]:
                    self.leaving = True
                case [int(op), *_] if op not in set(Op):
                    raise Over(f"unknown op {op}", 2)
                case _:
                    raise Over("not a command, or a field is missing", 1)

    def ready(self):
        held = [[*attempt, *request, 2] for attempt, request, _ in self.ends]  # no more than the window: one part will do
        tasks, size, self.barrier = (0, 0, 0) if self.leaving else (WINDOW_TASKS, WINDOW_BYTES, None)
        self.send([Op.READY, None, 0, 1, [self.service], [], tasks, size, held, 0, 1])
        for *_, done in self.ends:
            self.send(done)
        if not self.announced:
            print("ready", flush=True)
        self.announced = True

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", default="tcp://127.0.0.1:5556")
    parser.add_argument("--service", required=True)
    args = parser.parse_args()
    worker, context = Worker(args.service), zmq.Context()
    signal.signal(signal.SIGTERM, lambda *_: setattr(worker, "leaving", True))
    while True:
        sock = context.socket(zmq.DEALER)
        sock.sndhwm = sock.rcvhwm = 0
        sock.connect(args.backend)
        try:
            worker.session(sock)
            sock.close(linger=2000)  # for GOODBYE
            return context.term()
        except (Over, msgpack.UnpackException, ValueError, TypeError) as over:
            why, code = over.args if isinstance(over, Over) else (repr(over), 1)
            print("session over:", why, file=sys.stderr)
            if code is not None:
                worker.send([Op.REFUSED, code, why[:120]])
            sock.close(linger=1000 if code is not None else 0)
        time.sleep(worker.pause * random.uniform(0.5, 1))
        worker.pause = min(2 * worker.pause, 5)

if __name__ == "__main__":
    main()
