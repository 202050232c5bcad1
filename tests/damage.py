"""Files that were damaged: what a reader has to bear."""

import random


def mutate(content: bytes, chooser: random.Random) -> bytes:
    """A few bytes flipped, dropped, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(chooser.randint(1, 4)):
        at, length = chooser.randrange(len(data)), chooser.randint(1, 12)
        match chooser.randrange(5):
            case 0:
                data[at] = chooser.randrange(256)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = chooser.choice([b"null", b"[", b"}", b'"', b",", b"-1", b"1e999", b"\x00", b"true", b"{}", b"\n"])
            case _:
                del data[at:]
        if not data:
            break
    return bytes(data)
