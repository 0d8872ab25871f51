"""Every backend, in the order in which they are shown."""

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.backends.eager import Eager
from attnscope.kernels.backends.fa2 import Fa2
from attnscope.kernels.backends.fa3 import Fa3
from attnscope.kernels.backends.fa4 import Fa4
from attnscope.kernels.backends.flex import Flex
from attnscope.kernels.backends.linear import Linear
from attnscope.kernels.backends.linformer import Linformer
from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.backends.sdpa_cudnn import SdpaCudnn
from attnscope.kernels.backends.sdpa_efficient import SdpaEfficient
from attnscope.kernels.backends.sdpa_flash import SdpaFlash
from attnscope.kernels.backends.sdpa_math import SdpaMath
from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.backends.triton_backend import Triton
from attnscope.kernels.backends.triton_block_sparse import TritonBlockSparse
from attnscope.kernels.backends.triton_decode import TritonDecode
from attnscope.kernels.errors import UnknownBackend

BACKENDS: tuple[Backend, ...] = (
    Eager(),
    SdpaMath(),
    SdpaEfficient(),
    SdpaFlash(),
    SdpaCudnn(),
    Fa2(),
    Fa3(),
    Fa4(),
    Flex(),
    Tiled(),
    Triton(),
    TritonDecode(),
    TritonBlockSparse(),
    Linear(),
    Performer(),
    Linformer(),
)


def backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UnknownBackend: There is none; the message names those there are.
    """
    for candidate in BACKENDS:
        if candidate.name == name:
            return candidate
    names = ", ".join(candidate.name for candidate in BACKENDS)
    raise UnknownBackend(f"No backend {name!r}.", f"Use one of {names}.")
