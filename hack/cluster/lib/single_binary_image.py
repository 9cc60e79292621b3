"""Write an image archive with one static binary in it: single_binary_image.py NAME BINARY ARCHIVE.

The archive is in the format `docker load` and `ctr images import` read. The binary lands in the root folder under
its own name and is the entrypoint; the user is 65534 (nobody). The content depends on the binary only, not on the
time of the build, so an unchanged binary gives an unchanged image.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def tar_of(files: dict[str, bytes], mode: int) -> bytes:
    """A tar archive of `files` (path to content), owned by root, dated 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def image_archive(name: str, program: str, binary: bytes) -> bytes:
    """The image `name` whose only file and entrypoint is `/program`."""
    layer = tar_of({program: binary}, mode=0o755)
    layer_digest = hashlib.sha256(layer).hexdigest()
    configuration = {
        "os": "linux",
        "architecture": ARCHITECTURES[platform.machine()],
        "config": {"Entrypoint": [f"/{program}"], "User": "65534:65534", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
    }
    encoded = json.dumps(configuration, sort_keys=True).encode()
    config_path = f"{hashlib.sha256(encoded).hexdigest()}.json"
    layer_path = f"{layer_digest}/layer.tar"
    manifest = [{"Config": config_path, "RepoTags": [name], "Layers": [layer_path]}]
    return tar_of({config_path: encoded, layer_path: layer, "manifest.json": json.dumps(manifest).encode()}, mode=0o644)


def main(name: str, binary: str, archive: str) -> None:
    """Build the image and put it in place in one step, so that a reader never sees half a file."""
    source, target = Path(binary), Path(archive)
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_bytes(image_archive(name, source.name, source.read_bytes()))
    unfinished.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
