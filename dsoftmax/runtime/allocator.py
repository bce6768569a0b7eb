"""How the C library's allocator of a worker is told to keep the memory of decoded chunks."""

from __future__ import annotations

# Dask's own trim threshold of 64 KiB hands every decoded chunk back to the system, and the next
# one is faulted in anew. Setting one threshold freezes the other at its small default: set both.
# An arena a thread would each keep a chunk of its own, as many as Zarr happens to have threads.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_ARENA_MAX": "1",
}
