"""What "fast" means here, measured: `python -m benchmarks`, or `make bench`."""

import os

# Servers are started while channels are open; gRPC would warn that it cannot follow into them.
# It looks when it is imported, and whatever of this package imports it comes later.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
