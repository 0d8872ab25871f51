"""Every kernel on a real GPU: right first, then how fast. `python -m benchmarks.gpu --help`."""

import os
import sys

if __name__ == "__main__":
    if "--toy" in sys.argv:
        # Chosen before Triton is imported, or it compiles for a GPU that is not there.
        os.environ["TRITON_INTERPRET"] = "1"
    from benchmarks.gpu.run import main

    main()
