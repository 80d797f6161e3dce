"""``python -m gandist VERB ...``, which launchers start as a module."""

import sys

from gandist.cli import main

if __name__ == "__main__":
    sys.exit(main())
