#!/usr/bin/env python3
"""Writes the worked examples of PROTOCOL.md from the golden vectors.

    pip install msgpack && python3 annotate.py ../../../PROTOCOL.md

Each fenced block whose info string is `hex NAME` gets the bytes of that vector, a field a line.
"""

import json
import re
import sys
from pathlib import Path

import msgpack

FOLDER = Path(__file__).resolve().parent
WIDTH = 15


def vectors():
    files = ["to_broker.json", "from_broker.json"]
    found = [vector for name in files for vector in json.loads((FOLDER / name).read_text())]
    return {vector["name"]: vector for vector in found}


def lines(data, comment):
    rows = [data[at:at + WIDTH].hex(" ") for at in range(0, len(data), WIDTH)]
    yield f"{rows[0]:<{3 * WIDTH}}; {comment}"
    yield from rows[1:]


def words(value):
    if type(value) is bytes:
        return f"bin of {len(value)}"
    return json.dumps(value, default=lambda data: data.hex()).replace("null", "nil")


def annotated(vector):
    data = bytes.fromhex(vector["hex"])
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(data)
    elements = unpacker.read_array_header()
    op = unpacker.unpack()
    yield from lines(data[: unpacker.tell()], f"array of {elements}: {vector['op']} ({op})")
    for name, _ in vector["fields"]:
        start = unpacker.tell()
        value = unpacker.unpack()
        yield from lines(data[start : unpacker.tell()], f"{name}: {words(value)}")


def main(path):
    known = vectors()

    def block(match):
        text = "\n".join(annotated(known[match[1]]))
        return f"```hex {match[1]}\n{text}\n```"

    path = Path(path)
    path.write_text(re.sub(r"```hex (\w+)\n.*?```", block, path.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main(sys.argv[1])
