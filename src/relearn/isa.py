"""The processor's instructions that numerical libraries may use: the choice between them changes the last digits. Needs no torch."""

import os
import platform
import sys
from pathlib import Path

PINS = {  # what torch's own kernels, oneDNN and MKL read, each once, at its first computation
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
PROCESSOR = Path("/proc/cpuinfo")
X86 = ("x86_64", "AMD64")


def pin(name: str) -> None:
    """Keep this process to the instructions of one of `PINS`; to be called before torch is imported.

    Says on standard error where the processor has no AVX2 to keep to, and leaves torch as it is: told to use it all the
    same, it would be killed. `cpu_capability` in the job's run.json has what was used.
    """
    if name == "avx2" and not _has_avx2():
        print(
            "relearn: compute.isa is avx2, which this processor does not have; it computes natively, to other bytes",
            file=sys.stderr,
        )
        return
    os.environ.update(PINS[name])


def _has_avx2() -> bool:
    if platform.machine() not in X86:
        return False
    return (
        not PROCESSOR.exists() or "avx2" in PROCESSOR.read_text().split()
    )  # systems without that file run on none that lacks it
