"""A server that is killed and begun again: on each line read, a child that serves one store and says at which port.

Run by test_serve_kill.py. All that is slow to import is imported once, before the first fork.
"""

import os
import sys
import threading
import time

from ponder.serve import Served, Settings, create_app
from ponder.serve.run import server
from ponder.testing.script import Say
from ponder.testing.scripted import ScriptedSampler


def script(conversation, index):
    asked = conversation[-1].text
    return Say(f"answer to {asked}", reasoning="hm hm hm", seconds=0.02)


def tell_port(running) -> None:
    while not running.started:
        time.sleep(0.002)
    tell(running.servers[0].sockets[0].getsockname()[1])


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        tell(os.getpid())
        app = create_app([Served(name="said", sampler=ScriptedSampler(script))], Settings(store=sys.argv[1], port=0))
        running = server(app)
        threading.Thread(target=tell_port, args=(running,), daemon=True).start()
        running.run()
        os._exit(0)
    os.waitpid(child, 0)
    tell("dead")
