"""Files of a VM: calls.py for /vms/{id}/files."""

import base64
import hashlib
import io
from pathlib import Path

from .call import Call, Page, given, nothing, reads, reads_bytes, reads_list, unread
from .models import FileEntry, UnpackedArchive, WrittenFile


def _content_headers(data: bytes | Path, kind: str) -> dict[str, str]:
    """With its digest: what comes in the guest is what was sent, or nothing."""
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()
        length = file.seek(0, io.SEEK_END)
    return {
        "Content-Type": kind,
        "Content-Length": str(length),
        "Repr-Digest": f"sha-256=:{digest}:",
    }


def put_file(
    vm_id: str, path: str, data: bytes | Path, mode: int | None, parents: bool
) -> Call[WrittenFile]:
    return Call(
        "putFile",
        reads(WrittenFile),
        (vm_id,),
        content=data,
        query=given(
            path=path,
            mode=None if mode is None else f"{mode:04o}",
            parents="true" if parents else None,
        ),
        headers=_content_headers(data, "application/octet-stream"),
    )


def get_file(vm_id: str, path: str, most: int | None = None) -> Call[bytes]:
    headers = {} if most is None else {"Range": f"bytes=0-{most - 1}"}
    return Call("getFile", reads_bytes, (vm_id,), query={"path": path}, headers=headers)


def save_file(vm_id: str, path: str) -> Call[None]:
    """get_file, for who takes it piece by piece."""
    return Call("getFile", unread, (vm_id,), query={"path": path})


def delete_file(vm_id: str, path: str, recursive: bool) -> Call[None]:
    query = given(path=path, recursive="true" if recursive else None)
    return Call("deleteFile", nothing, (vm_id,), query=query)


def list_files(vm_id: str, path: str, cursor: str | None) -> Call[Page[FileEntry]]:
    query = given(path=path, limit=500, cursor=cursor)
    return Call("listFiles", reads_list(FileEntry, "entries"), (vm_id,), query=query)


def put_archive(vm_id: str, path: str, source: Path, parents: bool) -> Call[UnpackedArchive]:
    query = given(path=path, parents="true" if parents else None)
    headers = _content_headers(source, "application/x-tar")
    read = reads(UnpackedArchive)
    return Call("putArchive", read, (vm_id,), content=source, query=query, headers=headers)


def save_archive(vm_id: str, path: str) -> Call[None]:
    return Call("getArchive", unread, (vm_id,), query={"path": path})
