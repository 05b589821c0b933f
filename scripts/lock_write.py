"""Prints a lock file with hashes from a `pip install --report` JSON, keeping the comment of the present lock."""

import json
import sys
from pathlib import Path

comment = [line for line in Path("requirements/cpu.lock").read_text().splitlines() if line.startswith("#")]
pins = []
for item in json.loads(Path(sys.argv[1]).read_text())["install"]:
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    pins.append((name.lower().replace("_", "-"), f"{name}=={version} --hash=sha256:{digest}"))
print("\n".join([*comment, *(pin for _, pin in sorted(pins))]))
