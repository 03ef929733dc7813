#!/usr/bin/env python3
"""A pinmesh client: it submits COUNT payloads of raw bytes and checks what comes back."""
import argparse, heapq, os, random, socket, sys, time
from dataclasses import dataclass
from enum import IntEnum
import msgpack, zmq

Op = IntEnum("Op", dict(HELLO=1, WELCOME=2, REFUSED=3, NO_SESSION=4, HEARTBEAT=5, GOODBYE=6, ACK=7, WINDOW=8, SERVICE=9,
                        SUBMIT=16, RESULT=24, ACCEPTED=25, FETCHED=26, PROGRESS=36))
MIB, OWN_WINDOW = 1 << 20, 16 << 20  # bytes on the way, lest heartbeats wait too long behind them

class Over(Exception):
    """The session has ended. (why, code of the REFUSED that we owe the broker or None)"""
class Failed(Exception):
    """A result is wrong."""

@dataclass
class Request:
    payload: bytes
    submission: int = 0
    epoch: int | None = None  # the one that it was submitted to
    busy: bool = False        # answered BUSY, and not yet handed in again
    waits: bool = False       # in todo although it was submitted before: BUSY, or of the session before this

def make_payload(number):
    """Empty, or 8 to 102,400 bytes, or 3 MB, of which the first 8 differ from all others'."""
    draw = random.Random(number)
    size = {2: 102_400, 3: 32_767, 4: 32_768, 5: 3_000_000}.get(number) or draw.choice((8, 100, draw.randint(8, 102_400)))
    return b"" if number == 1 else number.to_bytes(8) + draw.randbytes(size - 8)

def payload_of(field, frames):
    body = field if isinstance(field, bytes) else b"".join(frames[1:])
    if body is not field and field[:3] != [1, len(frames) - 1, len(body)]:
        raise Over("frames and payload do not agree", 4)
    return body

class Client:
    def __init__(self, service, count, step):
        self.service, self.count, self.step, self.done = service, count, step, 0
        self.peer_id, self.pause, self.requests = os.urandom(16), 0.1, {}  # those that have been submitted and not ended
        self.todo = [(0.0, number) for number in range(1, count + 1)]      # heap of (not before, request)

    def session(self, sock):
        """From HELLO to the last result, or to Over or Failed."""
        self.sock, self.epoch, self.nonce, self.heartbeat, self.limit = sock, None, random.getrandbits(64), 1.0, 3.0
        self.taken = self.grace = self.beats = self.next_beat = acked = quiet = 0
        before = time.monotonic()
        self.send(Op.HELLO, 1, 1, 1, self.peer_id, f"client.py@{socket.gethostname()}", self.nonce, 0)
        while self.done < self.count:
            heard, timeout = False, min(50, self.heartbeat * 200)
            while sock.poll(0 if heard else timeout):  # read it empty before judging
                heard = True
                self.take(sock.recv_multipart())
                if self.taken > acked:
                    self.send(Op.ACK, acked := self.taken)
            now = time.monotonic()  # in a step longer than a heartbeat this process did not run
            quiet = 0 if heard and self.epoch is not None else quiet + min(now - before, self.heartbeat)
            before = now
            if quiet > self.limit and now > self.grace:
                raise Over("silence", None)
            if self.epoch is not None:
                if now >= self.next_beat:
                    self.beat()
                self.fill(now)
        self.send(Op.GOODBYE)

    def send(self, *command, frames=()):
        self.sock.send_multipart([msgpack.packb(command), *frames])

    def beat(self, silence_ns=None):
        self.beats, now = self.beats + 1, time.monotonic()
        self.next_beat, self.grace = now + self.heartbeat, max(self.grace, now) + (silence_ns or 0) / 1e9
        self.send(Op.HEARTBEAT, self.beats, silence_ns)

    def fill(self, now):
        """Submit what the window has room for; one is always allowed, whatever its bytes."""
        flying = [len(request.payload) for request in self.requests.values() if not request.waits]
        tasks, size = len(flying), sum(flying)
        while self.todo and self.todo[0][0] <= now and tasks < self.window_tasks:
            number = self.todo[0][1]
            request = self.requests.get(number) or Request(make_payload(number))
            tasks, size = tasks + 1, size + len(request.payload)
            if tasks > 1 and size > min(self.window_bytes, OWN_WINDOW):
                break
            heapq.heappop(self.todo)
            self.submit(number, request)

    def submit(self, number, request):
        size, frames, field = len(request.payload), [], request.payload
        if size > self.longest:
            raise Failed(f"request {number}: its {size} bytes are more than the broker takes")
        if request.busy or request.epoch != self.epoch:
            request.submission, request.epoch, request.busy = request.submission + 1, self.epoch, False
        request.waits, self.requests[number] = False, request
        if size >= 32_768:
            frames = [request.payload[i:i + MIB] for i in range(0, size, MIB)]
            field = [1, len(frames), size]
        if size > MIB:
            self.beat(size * 10**9 // 262_144)
        self.send(Op.SUBMIT, number, request.submission, self.service, 5, None, 0, None, field, frames=frames)

    def take(self, frames):
        commands = msgpack.Unpacker(strict_map_key=False)
        commands.feed(frames[0])
        for command in commands:
            match command:
                case [Op.WELCOME, _, nonce, int(epoch), int(heartbeat), _, int(liveness), int(tasks), int(size), int(longest), *_]:
                    if nonce == self.nonce and self.epoch is None:
                        self.epoch, self.heartbeat, self.limit = epoch, heartbeat / 1e9, liveness * heartbeat / 1e9
                        self.window_tasks, self.window_bytes, self.longest = tasks, size, longest
                        for number, request in self.requests.items():
                            if not request.waits:
                                request.waits = True
                                heapq.heappush(self.todo, (0.0, number))
                case [Op.REFUSED | Op.NO_SESSION | Op.GOODBYE as op, *why]:
                    raise Over(f"{Op(op).name} {why}", None)
                case [int(op), *_] if self.epoch is None or op >= 128 or op in (Op.SERVICE, Op.ACCEPTED, Op.FETCHED):
                    pass
                case [Op.HEARTBEAT, int(), None | int() as silence_ns, *_]:  # an echo: not to be echoed again
                    self.pause, self.grace = 0.1, max(self.grace, time.monotonic() + (silence_ns or 0) / 1e9)
                case [Op.WINDOW, int(tasks), int(size), *_]:
                    self.window_tasks, self.window_bytes = tasks, size
                case [Op.PROGRESS, _, _, _, _, int(kind), *_]:
                    self.taken += kind == 1
                case [Op.RESULT, int(number), int(submission), int(status), _, _, _, payload, retry_after_ns, *_]:
                    output = payload_of(payload, frames)
                    self.taken += 1
                    self.result(number, submission, status, output, retry_after_ns)
                case [int(op), *_] if op not in set(Op):
                    raise Over(f"unknown op {op}", 2)
                case _:
                    raise Over("not a command, or a field is missing", 1)

    def result(self, number, submission, status, output, retry_after_ns):
        request = self.requests.get(number)
        if request is None or status in (5, 6, 7, 8, 9) and (request.waits or submission != request.submission):
            return  # there twice, or of an earlier submission
        if status == 6:
            request.busy = request.waits = True
            heapq.heappush(self.todo, (time.monotonic() + (retry_after_ns or 10**8) / 1e9, number))
            return
        if status != 0:
            raise Failed(f"request {number}: status {status}: {output[:200].decode(errors='replace')}")
        if output != request.payload[::self.step]:
            raise Failed(f"request {number}: {len(request.payload)} bytes in, and the {len(output)} out are not as expected")
        if request.waits:  # the broker had ended it before, or an earlier submission did after all
            self.todo = sorted(item for item in self.todo if item[1] != number)
        del self.requests[number]
        self.done += 1

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--frontend", default="tcp://127.0.0.1:5555")
    parser.add_argument("--service", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--expect", choices=("same", "reversed"), default="reversed")
    args = parser.parse_args()
    client, context, wrong = Client(args.service, args.count, -1 if args.expect == "reversed" else 1), zmq.Context(), None
    while client.done < args.count and not wrong:
        sock, linger = context.socket(zmq.DEALER), 2000
        sock.sndhwm = sock.rcvhwm = 0
        sock.connect(args.frontend)
        try:
            client.session(sock)
        except Failed as failed:
            wrong = failed
            client.send(Op.ACK, client.taken)
            client.send(Op.GOODBYE)
        except (Over, msgpack.UnpackException, ValueError, TypeError) as over:
            why, code = over.args if isinstance(over, Over) else (repr(over), 1)
            print("session over:", why, file=sys.stderr)
            if code is not None:
                client.send(Op.REFUSED, code, why[:120])
            linger = 1000 if code is not None else 0
        sock.close(linger)
        if linger != 2000:
            time.sleep(client.pause * random.uniform(0.5, 1))
            client.pause = min(2 * client.pause, 5)
    context.term()
    print(wrong or f"ok {args.count}")
    return 1 if wrong else 0

if __name__ == "__main__":
    sys.exit(main())
