"""What Gluon calls differently from one version of Triton to the next: 3.6, 3.7 and 3.9 are known."""

from typing import Any

from triton.experimental.gluon.language.nvidia.hopper import tma

_copies: Any = tma

# Of a tile by the copy engine: from device memory, telling a barrier, and to it.
if hasattr(_copies, "async_load"):
    copy_in, copy_out = _copies.async_load, _copies.async_store
else:
    copy_in, copy_out = _copies.async_copy_global_to_shared, _copies.async_copy_shared_to_global
