"""glibc's allocator set to keep freed memory, so that large activations are not page-faulted in again at each layer."""

import ctypes

# glibc's mallopt() parameters (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for this process; by default it returns every large one to the kernel.

    Returns:
        Whether it took effect (Linux with glibc only).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    options = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    return all(mallopt(option, value) for option, value in options)
