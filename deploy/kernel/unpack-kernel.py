"""unpack-kernel.py BZIMAGE OUT: the ELF inside a bzImage.

Firecracker boots nothing else, and QEMU's PVH entry skips the decompressor. The bzImage's set-up
header (Documentation/arch/x86/boot.rst in Linux) says where the compressed ELF lies.
"""

import lzma
import os
import struct
import subprocess
import sys
import zlib

TRAILER = 4  # the unpacked size, little endian, after every payload


class BadImage(Exception):
    """The file is not a bzImage that this program can unpack."""


def run(tool: str, data: bytes) -> bytes:
    """Pipe `data` through a decompressor of the host."""
    try:
        return subprocess.run([tool, "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError:
        raise BadImage(f"{tool} is missing: apt-get install {tool}") from None
    except subprocess.CalledProcessError:
        raise BadImage(f"{tool} cannot unpack the kernel: the file is damaged") from None


def decompress(payload: bytes) -> bytes:
    """Undo what the kernel's build did, told by the first bytes."""
    if payload.startswith(b"\x02\x21\x4c\x18"):  # lz4 would take the trailer for a block
        return run("lz4", payload[:-TRAILER])
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return run("zstd", payload[:-TRAILER])
    try:
        if payload.startswith(b"\xfd7zXZ\x00"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(31).decompress(payload)
    except (lzma.LZMAError, zlib.error) as error:
        raise BadImage(f"cannot unpack the kernel: {error}") from None
    raise BadImage(f"unknown compression, first bytes {payload[:6].hex()}")


def unpack(image: bytes) -> bytes:
    """The ELF inside `image`."""
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        raise BadImage("no bzImage: its set-up header is not there")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    if len(payload) != length or length <= TRAILER:
        raise BadImage("the file is shorter than its header says")
    size = struct.unpack("<I", payload[-TRAILER:])[0]
    elf = decompress(payload)
    if not elf.startswith(b"\x7fELF\x02") or len(elf) != size:
        raise BadImage(f"unpacked {len(elf)} bytes where an ELF64 of {size} was promised")
    return elf


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: unpack-kernel.py BZIMAGE OUT", file=sys.stderr)
        return 2
    try:
        with open(sys.argv[1], "rb") as source:
            elf = unpack(source.read())
        with open(sys.argv[2] + ".new", "wb") as target:
            target.write(elf)
        os.replace(sys.argv[2] + ".new", sys.argv[2])
    except (BadImage, OSError) as error:
        print(f"unpack-kernel.py: {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
