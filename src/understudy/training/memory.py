"""Memory pages that a process keeps once it has them, instead of fetching them anew in every step."""

from __future__ import annotations

# option and value for mallopt; the options' numbers are those of malloc.h of glibc
_KEEP = (
    (-2, 64 * 2**20),  # M_TOP_PAD: grow by 64 MiB at a time
    (-1, -1),  # M_TRIM_THRESHOLD: never give back what is free at the top; any size would be a limit
    (-4, 0),  # M_MMAP_MAX: no mapping of its own for a large block, which would end when the block is freed
)


def keep_pages() -> bool:
    """Tells glibc's malloc to keep the pages of freed memory for this process.

    As it comes, malloc gives each large activation back to the kernel, and in the next step its pages are faulted in
    again, zeroed. Pages that are kept are used for what is allocated next; the process stays about as large as its
    largest step until it ends.

    This holds for the whole process, for good, and for its forks; a process that is started anew asks for itself. So
    it is for a command to call at its start, never for an import. A second call changes nothing. Blocks of 64 MiB and
    more that another thread than the main one allocates are mapped and given back as before.

    Returns:
        Whether it was set. False, and nothing is done, where there is no glibc: with musl, on macOS and on Windows.

    References:
        mallopt(3).
    """
    try:
        import ctypes  # a Python can be built without it

        library = ctypes.CDLL(None)
        _ = library.gnu_get_libc_version  # another libc may mean other options by these numbers
        mallopt = library.mallopt
    except (ImportError, AttributeError, OSError, TypeError):  # TypeError: Windows has no CDLL(None)
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int
    return all(mallopt(option, value) == 1 for option, value in _KEEP)
