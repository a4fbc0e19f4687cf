"""Checks a function's binary and packs it, so that the same binary always gives the same zip.

    package_function.py [--any-size] BINARY ZIP ARCHITECTURE [PATH...]

The paths are this machine's; none of them may be in the binary, or it would differ elsewhere.
"""

import argparse
import base64
import hashlib
import pathlib
import re
import zipfile

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

# Amazon Linux 2023, on which provided.al2023 runs, has glibc 2.34 ("Amazon Linux 2023 release notes").
GLIBC_NEWEST = (2, 34)
# Our own limit: a larger zip starts slower.  Lambda's is 50 MB ("Lambda quotas").
ZIP_BYTES_MAX = 8 * 1000 * 1000
MACHINES = {"arm64": "EM_AARCH64", "x86_64": "EM_X86_64"}
# What C's `__DATE__` becomes: a string of its own.
C_DATE = re.compile(rb"\0((?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 123]\d 20\d\d)\0")
# What the runtime image has beside glibc's own libraries.
LIBRARIES = {
    "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1",
    "libresolv.so.2", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
}


def check(binary, architecture, paths=()):
    content = pathlib.Path(binary).read_bytes()
    for path in paths:
        if path.encode() in content:
            raise SystemExit(f"{binary}: holds the path {path}, and would be another file on another machine")
    if date := C_DATE.search(content):
        raise SystemExit(
            f"{binary}: holds the date {date[1].decode()}, and would be another file tomorrow: some C code asks for __DATE__; "
            "scripts/build defines it away for what is built with its CFLAGS"
        )
    with open(binary, "rb") as file:
        elf = ELFFile(file)
        if elf["e_machine"] != MACHINES[architecture]:
            raise SystemExit(f"{binary}: is {elf['e_machine']}, not {architecture}")
        needed, newest = set(), (0, 0)
        for section in elf.iter_sections():
            if isinstance(section, DynamicSection):
                needed |= {tag.needed for tag in section.iter_tags("DT_NEEDED")}
            if isinstance(section, GNUVerNeedSection):
                for library, versions in section.iter_versions():
                    for version in versions:
                        name = version.name
                        if name.startswith("GLIBC_") and name != "GLIBC_PRIVATE":
                            number = tuple(int(part) for part in name.removeprefix("GLIBC_").split("."))
                            newest = max(newest, number[:2])
                            if number[:2] > GLIBC_NEWEST:
                                raise SystemExit(
                                    f"{binary}: needs {name} of {library.name}; Lambda has glibc {dotted(GLIBC_NEWEST)}. "
                                    "It would not start there: build it with scripts/build, which links against that version"
                                )
        if newest == (0, 0):
            raise SystemExit(f"{binary}: names no glibc version at all: not the binary that was meant")
        if needed - LIBRARIES:
            raise SystemExit(f"{binary}: needs libraries that Lambda does not have: {sorted(needed - LIBRARIES)}")
    return newest


def pack(binary, target, any_size=False):
    content = pathlib.Path(binary).read_bytes()
    entry = zipfile.ZipInfo("bootstrap", date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix, whatever packs it.
    entry.external_attr = 0o100755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    pathlib.Path(target).parent.mkdir(parents=True, exist_ok=True)
    partial = f"{target}.partial"
    with zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(entry, content, compresslevel=9)
    size = pathlib.Path(partial).stat().st_size
    if size > ZIP_BYTES_MAX and not any_size:
        pathlib.Path(partial).unlink()
        raise SystemExit(f"{target}: {size / 1e6:.1f} MB, over the limit of {ZIP_BYTES_MAX / 1e6:.0f} MB")
    pathlib.Path(partial).replace(target)
    return size, hashlib.sha256(pathlib.Path(target).read_bytes()).hexdigest()


def dotted(version):
    return ".".join(map(str, version))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--any-size", action="store_true", help="packs what is over the limit too")
    parser.add_argument("binary")
    parser.add_argument("zip")
    parser.add_argument("architecture", choices=MACHINES)
    parser.add_argument("paths", nargs="*", metavar="path")
    given = parser.parse_args()
    glibc = check(given.binary, given.architecture, given.paths)
    size, digest = pack(given.binary, given.zip, given.any_size)
    # Twice, because Lambda and Terraform (worker_package) write it in Base64.
    print(f"{given.zip}: {size / 1e6:.2f} MB, newest symbol GLIBC_{dotted(glibc)}, sha256 {digest} ({base64.b64encode(bytes.fromhex(digest)).decode()})")


if __name__ == "__main__":
    main()
