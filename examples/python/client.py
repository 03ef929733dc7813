"""A pinmesh client in Python: calls a service for each input, prints the results in their order.

    python client.py summary '[1, 2, 3, 4]' '[10, 20]'

Needs pyzmq and msgpack. PROTOCOL.md describes every command. Left out: resubmission after a lost
session. A ConnectionError means that tasks without a result may or may not have run.
"""

import argparse
import json
import os
import secrets
import sys
import time

import keys
import msgpack
import zmq

HELLO, WELCOME, REFUSED, NO_SESSION, HEARTBEAT, GOODBYE, ACK = range(1, 8)
SUBMIT, RESULT, PROGRESS = 16, 24, 36
CLIENT, MSGPACK, TEXT, STREAM = 1, 1, 4, 1
STATUSES = (
    "OK FAILED EXPIRED TIMED_OUT CRASHED CANCELLED BUSY NO_SERVICE REFUSED LOST".split()
)
UNDER_WAY_MAX = 256  # more would only wait in the broker


def call_all(frontend, service, inputs, key=None, broker_key=None):
    """Runs a task for each input; yields (index, status, output) in the order of their ends."""
    socket = keys.dealer(zmq.Context.instance(), frontend, key, broker_key)

    def send(*command):
        socket.send(msgpack.packb(command))

    inputs, under_way, window = enumerate(inputs), 0, 0
    nonce, ended, sequence = secrets.randbits(63), 0, 0
    interval, silence_max = 1.0, 3.0
    heard = beat = time.monotonic()
    send(HELLO, 1, 1, CLIENT, os.urandom(16), f"client.py@{os.uname().nodename}", nonce, 0)
    while True:
        while under_way < window and (entry := next(inputs, None)):
            index, value = entry
            send(SUBMIT, index, 1, service, 5, None, MSGPACK, None, msgpack.packb(value))
            under_way += 1
        if window and not under_way:
            send(GOODBYE)
            socket.close(linger=1000)
            return
        if socket.poll(200):
            heard = time.monotonic()
            first, *frames = socket.recv_multipart()
            unpacker, results, updates = msgpack.Unpacker(), [], 0
            unpacker.feed(first)
            for op, *fields in unpacker:
                if op == WELCOME and fields[1] == nonce:
                    interval, window = fields[3] / 1e9, min(fields[6], UNDER_WAY_MAX)
                    silence_max = fields[5] * interval
                elif op == RESULT:
                    index, _, status, _, _, content_type, payload = fields[:7]
                    data = payload if isinstance(payload, bytes) else b"".join(frames)
                    decode = {MSGPACK: msgpack.unpackb, TEXT: bytes.decode}.get(content_type, bytes)
                    results.append((index, STATUSES[status], decode(data)))
                elif op == PROGRESS and fields[5] == STREAM:
                    updates += 1  # dropped here, and counted: it is acknowledged as results are
                elif op in (REFUSED, NO_SESSION, GOODBYE):
                    raise ConnectionError(f"the broker ended the session: {op} {fields}")
            if results or updates:
                under_way, ended = under_way - len(results), ended + len(results) + updates
                send(ACK, ended)  # once a message, not once a result
                yield from results
        now = time.monotonic()
        if now - heard > silence_max:
            raise ConnectionError(f"no word from {frontend} for {silence_max} s")
        if window and now - beat >= interval:
            beat, sequence = now, sequence + 1
            send(HEARTBEAT, sequence, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Calls a service, once for each input.")
    parser.add_argument("--frontend", default="tcp://127.0.0.1:5555", help="the broker")
    parser.add_argument("service")
    parser.add_argument("inputs", nargs="+", type=json.loads, help="JSON values")
    keys.add_arguments(parser)
    args = parser.parse_args()
    outcomes = call_all(args.frontend, args.service, args.inputs, args.key, args.broker_key)
    outcomes = sorted(outcomes, key=lambda outcome: outcome[0])
    for _, status, output in outcomes:
        print(json.dumps(output) if status == "OK" else f"{status}: {output}")
    sys.exit(any(status != "OK" for _, status, _ in outcomes))
