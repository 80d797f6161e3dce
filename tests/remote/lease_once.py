"""A process that leases one shard and says what it got: FOLDER URL SIZE SHA256 [keep]."""

import hashlib
import sys
from pathlib import Path

from gandist.data.remote.cache import Cache

if __name__ == "__main__":
    folder, url, size, sha256, *keep = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    with Cache(Path(folder), None).lease(url, size=int(size), sha256=sha256) as lease:
        print(hashlib.sha256(lease.path.read_bytes()).hexdigest(), flush=True)
        if keep:
            sys.stdin.readline()
