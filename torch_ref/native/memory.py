"""Memory that a long run frees and asks for again, shard after shard."""

import ctypes

# As <malloc.h> has them; the largest size that may come from the heap is glibc's own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST, KEPT = 2**25, 2**30  # bytes


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, up to a gigabyte, where its C library is glibc.

    Else glibc gives tensors from 128 KiB on back to the system, whose pages are then found, and set
    to zero, anew: some thousand times in a shard of cases.
    """
    try:
        change = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another C library, or none to be asked
        return
    change(M_MMAP_THRESHOLD, LARGEST)
    change(M_TRIM_THRESHOLD, KEPT)
