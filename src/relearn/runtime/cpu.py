"""The CPU instructions that numerical libraries may use: their choice changes the last digits. Needs no torch."""

import os
import platform
import sys
from pathlib import Path

LIMITS = {  # what torch's own kernels, oneDNN and MKL read, each once, at its first computation
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "sse4": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
PROCESSOR = Path("/proc/cpuinfo")
X86 = ("x86_64", "AMD64")
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # what processors that multiply bfloat16 call it, the last on ARM


def limit_cpu_instructions(name: str) -> None:
    """Limit this process to the instructions of one of `LIMITS`; call it before torch is imported.

    On a processor without AVX2 "avx2" sets no limit and says so on standard error: torch would be killed by an
    instruction that is not there. `cpu_capability` in the job's run.json has what was used.
    """
    if name == "avx2" and not _has_avx2():
        print(
            "relearn: compute.isa is avx2, which this processor does not have; the job runs without that limit, "
            "and its results may differ in the last digits",
            file=sys.stderr,
        )
        return
    os.environ.update(LIMITS[name])


def usable_precision(wanted: str, isa: str) -> str:
    """The precision in which this processor trains: `wanted`, or "float32" where bfloat16 would be far slower.

    It says so on standard error then. A system without /proc/cpuinfo cannot tell and gets float32.
    """
    limited = isa == "sse4" or (isa == "avx2" and _has_avx2())
    found = PROCESSOR.exists() and BFLOAT16 & set(PROCESSOR.read_text().split())
    if wanted != "bfloat16" or (found and not limited):
        return wanted
    why = f"which compute.isa {isa} leaves out" if limited else "which this processor does not have"
    print(
        f"relearn: compute.precision is bfloat16, {why}; the job runs in float32: slower, and with other bytes than "
        "bfloat16 gives",
        file=sys.stderr,
    )
    return "float32"


def _has_avx2() -> bool:
    if platform.machine() not in X86:
        return False
    # the systems without that file run on no processor that lacks AVX2
    return not PROCESSOR.exists() or "avx2" in PROCESSOR.read_text().split()
