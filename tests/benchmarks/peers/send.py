"""How does a peer's own caller store or send its tasks? send.py MODULE BODY COUNT"""

import importlib
import random
import sys
import time


def moments(count):
    """Now, after a pause of 20 to 60 ms, so many times."""
    for _ in range(count):
        time.sleep(random.uniform(0.02, 0.06))
        yield time.time()


if __name__ == "__main__":
    module, body, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sender = importlib.import_module(module)
    began = time.time()
    sender.send(body, moments(count) if body == "stamp" else range(count))
    print(repr(time.time() - began))
