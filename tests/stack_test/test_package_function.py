"""What scripts/build refuses to pack."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import package_function


def compiled(folder, name, source, glibc, target="x86_64"):
    (folder / f"{name}.c").write_text(source)
    binary = folder / name
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-target", f"{target}-linux-gnu.{glibc}", "-s", "-o", binary, folder / f"{name}.c"],
        check=True, capture_output=True,
    )
    return binary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("binaries")


@pytest.fixture(scope="module")
def good(folder):
    return compiled(folder, "good", "#include <stdlib.h>\nint main(void) { return atexit(0) + rand(); }\n", "2.34")


def test_a_binary_for_lambda_is_packed_and_always_gives_the_same_zip(good, folder):
    assert package_function.check(good, "x86_64") <= (2, 34)
    digests = set()
    for name in ("one.zip", "two.zip"):
        good.touch()  # Neither the time nor the mode of the file counts.
        good.chmod(0o700 if name == "one.zip" else 0o755)
        digests.add(package_function.pack(good, folder / name)[1])
    assert len(digests) == 1
    with zipfile.ZipFile(folder / "one.zip") as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.external_attr >> 16) == ("bootstrap", 0o100755)
        assert archive.read(entry) == good.read_bytes()


def test_a_newer_glibc_is_refused(folder):
    # arc4random came with glibc 2.36.
    newer = compiled(folder, "newer", "#include <stdlib.h>\nint main(void) { return (int)arc4random(); }\n", "2.36")
    with pytest.raises(SystemExit, match="needs GLIBC_2.36 of libc.so.6; Lambda has glibc 2.34"):
        package_function.check(newer, "x86_64")


def test_another_architecture_is_refused(good):
    with pytest.raises(SystemExit, match="is EM_X86_64, not arm64"):
        package_function.check(good, "arm64")


def test_the_date_of_the_build_is_refused(folder):
    dated = compiled(folder, "dated", "#include <stdio.h>\nint main(void) { return puts(__DATE__); }\n", "2.34")
    with pytest.raises(SystemExit, match=r"holds the date [A-Z][a-z]{2} [ \d]\d 20\d\d, and would be another file tomorrow"):
        package_function.check(dated, "x86_64")


def test_a_path_of_this_machine_is_refused(folder):
    telling = compiled(folder, "telling", '#include <stdio.h>\nint main(void) { return puts("/home/me/nightshift"); }\n', "2.34")
    with pytest.raises(SystemExit, match="holds the path /home/me"):
        package_function.check(telling, "x86_64", ["/home/me"])


def test_a_zip_over_the_limit_is_refused_and_not_left_behind(good, folder, monkeypatch):
    monkeypatch.setattr(package_function, "ZIP_BYTES_MAX", 100)
    with pytest.raises(SystemExit, match="over the limit"):
        package_function.pack(good, folder / "large.zip")
    assert not list(folder.glob("large.zip*"))
    assert package_function.pack(good, folder / "large.zip", any_size=True)[0] > 100
