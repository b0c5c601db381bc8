"""Writing files so that a crash at any byte leaves either the old state or the new one.

Files are written beside their place, synced and renamed; folders likewise, with a manifest of SHA-256 hashes. Nothing here
reads or writes pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunewright.core.errors import StorageError

MANIFEST = "MANIFEST.json"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Ask the system to put a file's bytes, or a folder's names, on the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step: readers see the old text or the new one, never a part.

    Raises:
        StorageError: the disk is full or the place cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # A lone surrogate (a file name that is not UTF-8) becomes its escape, which is what JSON would write for it.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not be written ({error.strerror})", where=str(path), hint="Free space or choose another place."
        ) from error
    finally:
        with suppress(OSError):  # after the renaming it is not there; in a place that is no folder it never was
            temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as strict JSON (no NaN), keys in their order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises `StorageError` naming the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"could not be read ({error})", where=str(path)) from error


def write_folder(target: Path, fill: Callable[[Path], None], facts: Mapping[str, Any] | None = None) -> None:
    """Create `target` with what `fill(temporary)` writes, all or nothing, with a manifest of sizes and hashes.

    Args:
        target: must not exist yet.
        fill: writes the files into the temporary folder it is given (same file system).
        facts: JSON values kept in the manifest beside the file list.

    Raises:
        StorageError: the disk is full or the place cannot be written; no trace of `target` is left.
    """
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        files = {}
        for path in sorted(item for item in temporary.rglob("*") if item.is_file()):
            path.chmod(0o644)  # safetensors writes 0600, which locks out colleagues on a shared machine
            sync(path)
            files[str(path.relative_to(temporary))] = _facts_of(path)
        (temporary / MANIFEST).write_text(json.dumps({**(facts or {}), "files": files}, indent=1, allow_nan=False))
        sync(temporary / MANIFEST)
        sync(temporary)
        temporary.rename(target)
        sync(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"could not be written ({reason})", where=str(target), hint="Free space or choose another place."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # whatever went wrong, also in `fill`; after the renaming it is not there


def verify_folder(folder: Path) -> dict[str, Any]:
    """The facts of a folder written by `write_folder`, after checking every file against the manifest.

    Raises:
        StorageError: a file is missing, extra, of another size or of another hash.
    """
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise StorageError("is damaged: it lists no files", where=str(folder / MANIFEST))
    present = {str(item.relative_to(folder)) for item in folder.rglob("*") if item.is_file()} - {MANIFEST}
    for name in sorted(present ^ set(files)):
        raise StorageError("is missing" if name in files else "does not belong here", where=str(folder / name))
    for name, facts in files.items():
        if _facts_of(folder / name) != facts:
            raise StorageError("is damaged: its size or hash is not the one in the manifest", where=str(folder / name))
    return manifest


def _facts_of(path: Path) -> dict[str, Any]:
    try:
        return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    except OSError as error:
        raise StorageError(f"could not be read ({error.strerror})", where=str(path)) from error
