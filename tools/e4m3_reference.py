"""Every bf16 number as torch rounds it to float8_e4m3fn, a byte each, in the order of the bf16 bits.

    python tools/e4m3_reference.py tests/fixtures/e4m3.bin
"""

import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    values = bits.view(torch.bfloat16).to(torch.float32)
    rounded = values.to(torch.float8_e4m3fn)
    Path(sys.argv[1]).write_bytes(bytes(rounded.view(torch.uint8).tolist()))
