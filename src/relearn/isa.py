"""The processor's instructions that numerical libraries may use: the choice between them changes the last digits. Needs no torch."""

import os
from pathlib import Path

from relearn.errors import Fault

PINS = {  # what torch's own kernels, oneDNN and MKL read, each once, at its first computation
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
PROCESSOR = Path("/proc/cpuinfo")


def pin(name: str) -> None:
    """Keep this process to the instructions of one of `PINS`; to be called before torch is imported.

    Raises Fault where the processor says that it has no AVX2: torch would use it all the same, and be killed.
    """
    if name == "avx2" and PROCESSOR.exists() and "avx2" not in PROCESSOR.read_text().split():
        raise Fault("compute.isa is avx2, which this processor does not have; choose sse4 or native")
    os.environ.update(PINS[name])
