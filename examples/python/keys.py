"""Keys of a mesh, from the files that `pinmesh keygen` writes (docs/keys.md)."""

import zmq


def add_arguments(parser):
    """The flags by which our own programs take keys."""
    parser.add_argument("--key", help="file with this program's secret key, for brokers with keys")
    parser.add_argument("--broker-key", help="file with the broker's public key")


def dealer(context, endpoint, key=None, broker_key=None):
    """A socket that is connected to a broker, with keys where they are given."""
    socket = context.socket(zmq.DEALER)
    if key:
        secret = read(key)
        socket.curve_secretkey, socket.curve_publickey = secret, zmq.curve_public(secret)
        socket.curve_serverkey = read(broker_key)
    socket.connect(endpoint)
    return socket


def read(path):
    """The key in a file: its one line that is no comment."""
    with open(path, "rb") as file:
        return next(line.strip() for line in file if line.strip() and not line.startswith(b"#"))
