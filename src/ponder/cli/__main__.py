"""`python -m ponder.cli` is `ponder`."""

import sys

from ponder.cli.main import main

sys.exit(main())
