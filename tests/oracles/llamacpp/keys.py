"""Run in .venv-llamacpp: the keys of an architecture that llama.cpp's code names anywhere, one a line."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    found = find_spec("xllamacpp")
    assert found is not None and found.submodule_search_locations is not None
    code = next(Path(found.submodule_search_locations[0]).glob("xllamacpp*.so")).read_bytes()
    # A linker keeps one string for "%s.block_count" and "clip.%s.block_count": any beginning counts.
    keys = {key.decode() for key in re.findall(rb"%s\.([a-z][a-z0-9_.]*)\x00", code)}
    print("\n".join(sorted(key for key in keys if not key.startswith(("blk.", "proj_blk.")))))


if __name__ == "__main__":
    main()
