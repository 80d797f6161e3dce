"""What a launcher starts: ``accelerate launch train.py [CONFIG] [--section.key value ...]`` is ``gandist train``."""

import sys

from gandist.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
