"""Serve models from Python: `create_app` makes an ASGI application, which any ASGI server can run.

python examples/serve.py --port 8000      # needs the extra `serve`; then: python examples/client.py
"""

from __future__ import annotations

import argparse

import uvicorn

import ponder
from ponder.serve import Served, Settings, create_app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port

    model = ponder.load("mini")
    app = create_app([Served(name="mini", sampler=model.sampler)], Settings(port=port))
    print(f"serving mini on http://127.0.0.1:{port}/v1")
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
