"""Serve from Python: one model under two names, the second of which always answers by a strategy.

`create_app` makes an ASGI application, which any ASGI server can run.

python examples/serve.py --port 8000      # needs the extra `serve`; then: python examples/client.py
"""

from __future__ import annotations

import argparse

import uvicorn

import ponder
from ponder.serve import Served, Settings, create_app
from ponder.think import parse_strategy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port

    model = ponder.load("mini")
    served = [
        Served(name="mini", sampler=model.sampler),
        Served(name="careful", sampler=model.sampler, strategy=parse_strategy("consensus(samples=4)")),
    ]
    app = create_app(served, Settings(port=port))
    print(f"serving mini and careful on http://127.0.0.1:{port}/v1")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
