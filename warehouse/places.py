"""Where an export goes to and a restore comes from: a folder, or an object store that fsspec knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from steelyard.errors import InfrastructureError, InputError, SteelyardError
from warehouse.parquet import MANIFEST, PARQUET, parsed_manifest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or an object store. `told` is how others name it: an absolute folder, or a URL.

    Every method raises InfrastructureError where the store refuses or cannot be reached, whatever its client raises.
    """

    filesystem: Any
    root: str
    told: str
    local: bool

    @classmethod
    def of(cls, to: str) -> Place:
        """Raises InputError for a URL nobody knows, or whose package is not installed."""
        from fsspec.core import url_to_fs

        if "://" not in to:
            to = str(Path(to).expanduser().resolve())
        try:
            filesystem, root = url_to_fs(to)
        except ImportError as error:
            raise InputError(
                f"{to.split('://', maxsplit=1)[0]}:// needs a package that is not installed: {error}",
                remedy="Install it beside Steelyard, such as s3fs for s3:// or gcsfs for gs://.",
            ) from error
        except ValueError as error:
            raise InputError(f"{to} is nowhere to export to: {error}", remedy="Name a folder or a URL.") from error
        protocol = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
        local = "file" in protocol
        return cls(filesystem, root.rstrip("/"), root.rstrip("/") if local else to.rstrip("/"), local)

    @property
    def tree(self) -> Place:
        """The Parquet there. Of a folder the version it is now: a publish moves the link to another one."""
        below = f"{self.root}/{PARQUET}"
        root = str(Path(below).resolve()) if self.local else below
        return replace(self, root=root)

    def put(self, file: Path, target: str) -> int:
        """Copy a file there; its size in bytes. InfrastructureError also if what arrived has another size.

        In a folder under another name first, because somebody may have the old file open; one that no view of the
        rows there takes for theirs.
        """
        place, size = f"{self.root}/{target}", file.stat().st_size

        def send() -> int:
            self.filesystem.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
            beside = f"{place.rsplit('/', 1)[0]}/.new-{place.rsplit('/', 1)[1]}.part" if self.local else place
            self.filesystem.put_file(str(file), beside)
            arrived = int(self.filesystem.info(beside)["size"])
            if arrived != size:
                raise OSError(f"{place} has {arrived} bytes there, {size} here")
            if self.local:
                Path(beside).replace(place)
            return size

        return self._tried(send)

    def write(self, text: str, target: str) -> None:
        """Write a small file there."""

        def send() -> None:
            self.filesystem.makedirs(self.root, exist_ok=True)
            # A manifest that was cut short would say that nothing is there to be lost.
            beside = f"{self.root}/.new-{target}.part" if self.local else f"{self.root}/{target}"
            self.filesystem.pipe_file(beside, text.encode())
            if self.local:
                Path(beside).replace(f"{self.root}/{target}")

        self._tried(send)

    def read(self, target: str) -> bytes:
        """The bytes of a file there."""
        content: bytes = self._tried(lambda: self.filesystem.cat_file(f"{self.root}/{target}"))
        return content

    def remove(self, target: str) -> None:
        """Remove a file there."""
        self._tried(lambda: self.filesystem.rm_file(f"{self.root}/{target}"))

    def sizes(self) -> dict[str, int]:
        """Every file there, relative to the place, with its size in bytes; none if the place is not there."""
        try:
            found: dict[str, Any] = self.filesystem.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._refused(error) from error
        start = self.root.lstrip("/") + "/"
        return {path.lstrip("/").removeprefix(start): int(info["size"]) for path, info in found.items()}

    def manifest(self) -> dict[str, Any]:
        """What a tree of Parquet holds by its own account; nothing where there is none, or one that nobody can read."""
        try:
            text = self.filesystem.cat_file(f"{self.root}/{MANIFEST}")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:
            raise self._refused(error) from error
        return parsed_manifest(text)

    def _tried(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except SteelyardError:
            raise
        except Exception as error:
            # The clients of object stores raise errors of their own, of every kind.
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> InfrastructureError:
        return InfrastructureError(
            f"{self.told} refused: {' '.join(str(error).split()) or type(error).__name__}",
            remedy="Check rights, credentials and space there; the same command goes on where it stopped.",
        )
