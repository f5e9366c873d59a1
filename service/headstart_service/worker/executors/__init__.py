"""Where a step's function runs: on the event loop, in a thread, in a process, or on Ray.

`rules` is what declaring steps needs, `places` what running them does. This imports neither, so
that API processes load the first alone.
"""
