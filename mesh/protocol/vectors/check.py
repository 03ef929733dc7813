#!/usr/bin/env python3
"""Checks the golden vectors with Python's msgpack, independently of the Rust codec.

    pip install msgpack && python3 check.py

Each vector is read with msgpack's streaming Unpacker and judged by the table of fields below, which
follows PROTOCOL.md. Commands must mean what their vector says and, packed again, be the same bytes;
malformed ones must be refused with the code of their vector. The brokers of a key must have the
weights of their vector. Prints "N passed, 0 failed".
"""

import json
import sys
from pathlib import Path

import msgpack

MALFORMED, UNKNOWN_OP, TOO_LARGE, WRONG_FRAMES, NOT_ALLOWED = 1, 2, 3, 4, 6
FIRST_FRAME_BYTES_MAX = 256 * 1024
FRAME_BYTES_MAX, FRAMES_MAX = 1024 * 1024, 64
HEADER_BYTES_MAX, OPTIONS_BYTES_MAX, DEPTH_MAX = 4096, 3072, 8
SERVICE, NAME, REASON, KEY, LABEL, LABELS = 128, 256, 512, 128, 64, 32
SERVICES, LIST, WORKERS, WINDOW = 256, 1024, 1024, 1_000_000


class Refused(Exception):
    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


def need(condition, why, code=MALFORMED):
    if not condition:
        raise Refused(code, why)


# Kinds of fields: functions that raise Refused. `message` collects payload references.


def uint(bits, most=None, least=0):
    most = 2**bits - 1 if most is None else most

    def check(value, message):
        need(type(value) is int, f"{value!r} is not an integer")
        need(least <= value <= most, f"{value} is not in {least}..={most}")

    return check


def i32(value, message):
    need(type(value) is int and -(2**31) <= value < 2**31, f"{value!r} is not a 32-bit integer")


def boolean(value, message):
    need(type(value) is bool, f"{value!r} is not a bool")


def one_of(*values):
    def check(value, message):
        need(type(value) is int and value in values, f"{value!r} is not one of {values}")

    return check


def text(most):
    def check(value, message):
        need(type(value) is str, f"{value!r} is not a str")
        need(len(value.encode()) <= most, f"a str longer than {most}", TOO_LARGE)

    return check


def binary(most):
    def check(value, message):
        need(type(value) is bytes, f"{value!r} is not a bin")
        need(len(value) <= most, f"a bin longer than {most}", TOO_LARGE)

    return check


def peer_id(value, message):
    need(type(value) is bytes and len(value) == 16, f"{value!r} is not 16 bytes")


def nil_or(kind):
    def check(value, message):
        if value is not None:
            kind(value, message)

    return check


def list_of(kind, most):
    def check(value, message):
        need(type(value) is list, f"{value!r} is not an array")
        need(len(value) <= most, f"more than {most}", TOO_LARGE)
        for element in value:
            kind(element, message)

    return check


def array(*kinds):
    def check(value, message):
        need(type(value) is list and len(value) >= len(kinds), f"{value!r} is not {len(kinds)} fields")
        for element, kind in zip(value, kinds):
            kind(element, message)

    return check


def service(value, message):
    if type(value) is str:
        text(SERVICE)(value, message)
    else:
        uint(32, SERVICES - 1)(value, message)


def options(value, message):
    need(type(value) is dict, f"{value!r} is not a map")
    need(len(pack(value)) <= OPTIONS_BYTES_MAX, "options too long", TOO_LARGE)
    need(depth(value) <= DEPTH_MAX, "options too deep", TOO_LARGE)


def payload(value, message):
    if type(value) is bytes:
        return
    array(uint(64), uint(64), uint(64))(value, message)
    first, frames, size = value[:3]
    lens = message.attachments
    need(not message.is_taken, "two payloads name the frames", WRONG_FRAMES)
    need(first == 1 and frames == len(lens) > 0, "not all frames are named", WRONG_FRAMES)
    need(size == sum(lens), "the frames have another length", WRONG_FRAMES)
    message.is_taken = True


u16, u32, u64 = uint(16), uint(32), uint(64)
tasks, alias, code = uint(32, WINDOW), uint(32, SERVICES - 1), one_of(*range(1, 9))
attempt = array(u32, u64, u32)
attempts = list_of(attempt, LIST)
names, labels = list_of(text(SERVICE), SERVICES), list_of(text(LABEL), LABELS)
held = array(u32, u64, u32, peer_id, u64, u32, one_of(0, 1, 2))
host_worker = array(u16, u32, nil_or(u16), attempts)
ATTEMPT = [("epoch", u32), ("task", u64), ("dispatch", u32)]
PAYLOAD = [("content_type", u32), ("payload", payload)]

BOTH = {
    3: ("REFUSED", [("code", code), ("reason", text(REASON))]),
    5: ("HEARTBEAT", [("sequence", u64), ("silence_ns", nil_or(u64))]),
    6: ("GOODBYE", []),
    7: ("ACK", [("n", u64)]),
    8: ("WINDOW", [("tasks", tasks), ("bytes", u64)]),
    9: ("SERVICE", [("alias", alias), ("name", text(SERVICE))]),
}
TO_BROKER = BOTH | {
    1: ("HELLO", [("version_min", u32), ("version_max", u32), ("role", one_of(1, 2, 3)),
        ("peer_id", peer_id), ("name", text(NAME)), ("nonce", u64), ("features", u64)]),
    16: ("SUBMIT", [("request_id", u64), ("submission", u32), ("service", service),
        ("priority", uint(8, 10, 1)), ("deadline_ns", nil_or(u64)), ("content_type", u32),
        ("options", nil_or(options)), ("payload", payload)]),
    17: ("CANCEL", [("request_id", u64), ("submission", u32), ("is_hard", boolean)]),
    18: ("FETCH", [("request_id", u64), ("submission", u32), ("key", binary(KEY)),
        ("waits", boolean)]),
    33: ("DONE", [*ATTEMPT, ("status", one_of(0, 1, 5, 10)), ("residence_ns", u64),
        ("service_ns", u64), *PAYLOAD]),
    34: ("READY", [("host", nil_or(peer_id)), ("slot", u16), ("incarnation", u32),
        ("services", names), ("labels", labels), ("window_tasks", tasks), ("window_bytes", u64),
        ("held", list_of(held, LIST)), ("part", u32), ("parts", uint(32, least=1))]),
    35: ("RETURN", ATTEMPT),
    36: ("PROGRESS", [*ATTEMPT, ("sequence", u64), ("kind", one_of(0, 1)), *PAYLOAD]),
    48: ("HOST", [("cpus", list_of(u16, WORKERS)), ("workers", list_of(host_worker, WORKERS))]),
    49: ("LOST", [("slot", u16), ("incarnation", u32), ("cause", one_of(*range(8))),
        ("detail", i32), ("running", nil_or(attempt)), ("started", attempts)]),
    51: ("RECALLED", [("slot", u16), ("attempts", attempts)]),
}
FROM_BROKER = BOTH | {
    2: ("WELCOME", [("version", u32), ("nonce", u64), ("epoch", u32), ("heartbeat_ns", u64),
        ("lease_ns", u64), ("liveness", u32), ("window_tasks", tasks), ("window_bytes", u64),
        ("payload_bytes_max", u64), ("header_bytes_max", u32), ("kept_ns", u64)]),
    4: ("NO_SESSION", []),
    17: ("CANCEL", [("slot", u16), *ATTEMPT, ("is_hard", boolean)]),
    24: ("RESULT", [("request_id", u64), ("submission", u32), ("status", one_of(*range(10))),
        ("tries", u32), ("stages", nil_or(array(u64, u64, u64, u64))), *PAYLOAD,
        ("retry_after_ns", nil_or(u64))]),
    25: ("ACCEPTED", [("request_id", u64), ("task", u64)]),
    26: ("FETCHED", [("request_id", u64), ("submission", u32), ("state", one_of(0, 1))]),
    32: ("TASK", [("task", u64), ("dispatch", u32), ("client_id", peer_id), ("request_id", u64),
        ("submission", u32), ("service", service), ("tries", u32), ("deadline_ns", nil_or(u64)),
        ("max_runtime_ns", u64), ("content_type", u32), ("options", nil_or(options)),
        ("payload", payload)]),
    36: ("PROGRESS", [("request_id", u64), ("submission", u32), ("task", u64),
        ("dispatch", u32), ("sequence", u64), ("kind", one_of(0, 1)), *PAYLOAD]),
    37: ("DRAIN", []),
    50: ("RECALL", [("slot", u16), ("attempts", attempts)]),
}
TABLES = {"to_broker": TO_BROKER, "from_broker": FROM_BROKER}


def pack(value):
    return msgpack.packb(value, use_bin_type=True)


def depth(value):
    """Nesting of arrays and maps that are not empty."""
    level, deep = [value], -1
    while level:
        deep += 1
        inner = []
        for item in level:
            if type(item) is list:
                inner.extend(item)
            elif type(item) is dict:
                inner.extend([*item.keys(), *item.values()])
        level = inner
    return deep


class Message:
    """A message: its commands as lists, refused as a broker or a peer would refuse them."""

    def __init__(self, direction, first, attachments):
        self.table, self.other = TABLES[direction], TABLES.keys() - {direction}
        self.attachments, self.is_taken = attachments, False
        self.commands, self.ignored = [], 0
        need(len(first) <= FIRST_FRAME_BYTES_MAX, "first frame too long", TOO_LARGE)
        need(len(attachments) <= FRAMES_MAX, "too many frames", TOO_LARGE)
        need(max(attachments, default=0) <= FRAME_BYTES_MAX, "frame too long", TOO_LARGE)
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=len(first) + 1)
        unpacker.feed(first)
        while unpacker.tell() < len(first):
            start = unpacker.tell()
            self.command(self.unpack(unpacker), lambda: unpacker.tell() - start)
        need(self.is_taken or self.ignored or not attachments, "frames unnamed", WRONG_FRAMES)

    @staticmethod
    def unpack(unpacker):
        try:
            return unpacker.unpack()
        except msgpack.OutOfData:
            raise Refused(MALFORMED, "the bytes end in a value") from None
        except msgpack.StackError:
            raise Refused(TOO_LARGE, "nested too deep") from None
        except (ValueError, TypeError) as error:
            raise Refused(MALFORMED, str(error)) from None

    def command(self, command, size):
        need(type(command) is list and command, "not an array with an op")
        op, *fields = command
        uint(64)(op, self)
        if op >= 128:
            need(max(map(depth, fields), default=0) <= DEPTH_MAX, "too deep", TOO_LARGE)
            self.ignored += 1
            return
        if op not in self.table:
            is_known = any(op in TABLES[other] for other in self.other)
            raise Refused(NOT_ALLOWED if is_known else UNKNOWN_OP, f"op {op}")
        name, kinds = self.table[op]
        need(len(fields) >= len(kinds), f"{name} has {len(fields)} of {len(kinds)} fields")
        for (field, kind), value in zip(kinds, fields):
            kind(value, self)
        values = dict(zip((field for field, _ in kinds), fields))
        if name == "READY":
            need(values["part"] < values["parts"], "part is past parts")
        later = fields[len(kinds):]
        need(max(map(depth, later), default=0) <= DEPTH_MAX, "later field too deep", TOO_LARGE)
        if "payload" in values:
            inline = len(values["payload"]) if type(values["payload"]) is bytes else 0
            need(size() - inline <= HEADER_BYTES_MAX, "header too long", TOO_LARGE)
        self.commands.append((name, op, values))


def as_json(value):
    if type(value) is bytes:
        return {"bin": value.hex()}
    if type(value) is dict:
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if type(value) is list else value


def read(vector):
    first = bytes.fromhex(vector["hex"])
    return Message(vector["direction"], first, vector.get("attachments", []))


def check_command(vector):
    """The one command means what the vector says; returns it packed again."""
    message = read(vector)
    assert len(message.commands) == 1, f"{len(message.commands)} commands"
    name, op, values = message.commands[0]
    assert name == vector["op"], name
    found = [[field, as_json(value)] for field, value in values.items()]
    assert found == vector["fields"], f"{found} is not {vector['fields']}"
    return pack([op, *values.values()]).hex()


def check_exact(vector):
    again = check_command(vector)
    assert again == vector["hex"], f"packed again: {again}"


def check_tolerated(vector):
    if "op" not in vector:
        message = read(vector)
        assert (len(message.commands), message.ignored) == (0, 1), "not ignored"
        return
    again = check_command(vector)
    assert again == vector["canonical"], f"packed again: {again}"


def check_malformed(vector):
    try:
        read(vector)
    except Refused as refused:
        assert refused.code == vector["error"], f"code {refused.code}: {refused}"
    else:
        raise AssertionError("was taken")


def check_rendezvous(vector):
    def fnv1a(data):
        value = 0xCBF29CE484222325
        for byte in data:
            value = (value ^ byte) * 0x100000001B3 % 2**64
        return value

    def weight(key, broker):
        z = ((fnv1a(key) ^ fnv1a(broker.encode())) + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    weights = [weight(bytes.fromhex(vector["key"]), broker) for broker in vector["brokers"]]
    found = [f"{weight:016x}" for weight in weights]
    assert found == vector["weights"], f"weights {found}"
    order = sorted(range(len(weights)), key=lambda at: -weights[at])
    assert order == vector["order"], f"order {order}"


FILES = {
    "rendezvous.json": check_rendezvous,
    "to_broker.json": check_exact,
    "from_broker.json": check_exact,
    "tolerated.json": check_tolerated,
    "malformed.json": check_malformed,
}


def main():
    folder = Path(__file__).resolve().parent
    unread = {path.name for path in folder.glob("*.json")} - FILES.keys()
    passed, failures = 0, [f"{name}: no check for this file" for name in sorted(unread)]
    for name, check in FILES.items():
        vectors = json.loads((folder / name).read_text())
        if not vectors:
            failures.append(f"{name}: no vectors")
        for vector in vectors:
            try:
                check(vector)
                passed += 1
            except Exception as error:  # a broken vector must not hide the others
                failures.append(f"{name} {vector.get('name')}: {type(error).__name__}: {error}")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
