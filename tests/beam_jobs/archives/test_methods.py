"""A zip's members by each of the methods: read whole, or rejected; never more than was asked for."""

from __future__ import annotations

import bz2
import lzma
import random
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_jobs import storage
from beam_jobs.archives import methods, tables, zstd
from beam_jobs.archives.methods import BZIP2, DEFLATED, LZMA, STORED, ZSTANDARD
from beam_jobs.images import UNREADABLE, RejectedImage
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import Archive, Run, noise, planet, read_all, within, zip_by_hand, zip_of
from tests.beam_jobs.making import zstd as zstd_of

NAMES = {DEFLATED: "deflate", BZIP2: "bzip2", LZMA: "lzma", ZSTANDARD: "zstandard"}
each_method = pytest.mark.parametrize("method", NAMES, ids=NAMES.values())

# Short ones, ones over what is read at a time, ones that pack well and not at all.
MEMBERS = {
    f"t/{name}.jpg": data
    for name, data in {
        "none": b"", "one": b"a", "text": b"chip " * 40_000, "zeros": bytes(3_000_001),
        "noise": random.Random(0).randbytes(300_000),
    }.items()
}  # fmt: skip


def index_says(path: Path, size: int) -> None:
    """Changes what the index says of the first member's unpacked bytes."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)


def read_one(path: Path) -> bytes:
    with Reader() as reader:
        return reader.read(list_images([str(path)])[0])


@each_method
def test_members_are_read_on_this_machine_and_in_a_store(tmp_path: Path, server: Faulty, method: int) -> None:
    path = zip_of(tmp_path / "a.zip", MEMBERS, method)
    wanted = {Path(name).stem: data for name, data in MEMBERS.items()}
    assert read_all(path) == wanted
    storage.write_bytes("gs://here/a.zip", path.read_bytes())
    assert read_all("gs://here/a.zip") == wanted


@each_method
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.integers(0, 100_000).map(bytes))
def test_whatever_was_packed_is_read(tmp_path: Path, method: int, data: bytes) -> None:
    assert read_one(zip_of(tmp_path / "a.zip", {"a.jpg": data}, method)) == data


@each_method
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_damaged_members_are_right_or_rejected(tmp_path: Path, method: int, drawn: st.DataObject) -> None:
    plain = bytes(range(256)) * 8
    content = bytearray(zip_of(tmp_path / "a.zip", {"a.jpg": plain}, method).read_bytes())
    first = content.index(b"a.jpg") + 5
    last = content.index(b"PK\x01\x02") - 1
    for _ in range(drawn.draw(st.integers(1, 4), label="how often")):
        at = drawn.draw(st.integers(first, min(first + 24, last)) | st.integers(first, last), label="place")
        content[at] = drawn.draw(st.integers(0, 255), label="byte")
    (tmp_path / "a.zip").write_bytes(content)
    with within(20):
        try:
            assert read_one(tmp_path / "a.zip") == plain
        except RejectedImage as rejected:
            assert rejected.reason == UNREADABLE  # noqa: PT017


@each_method
@pytest.mark.parametrize("left", [0, 3, 10, 60_000])
def test_a_member_that_is_cut_short_is_rejected_in_the_same_words(
    tmp_path: Path, method: int, left: int
) -> None:
    plain = random.Random(1).randbytes(100_000)
    whole = zip_of(tmp_path / "a.zip", {"a.jpg": plain}, method).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        stored = archive.getinfo("a.jpg").compress_size
    packed = whole[35 : 35 + stored]
    path = zip_by_hand(tmp_path / "b.zip", {"a.jpg": (plain, packed[:left])}, method)
    with pytest.raises(RejectedImage) as caught:
        read_one(path)
    assert caught.value.args == (UNREADABLE, "its bytes do not fit the archive's checksum")


@each_method
def test_one_that_unpacks_to_more_than_its_index_says_is_rejected_before_it_bursts(
    tmp_path: Path, method: int
) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"\0" * 50_000_000}, method)
    index_says(path, 100)
    tracemalloc.start()
    try:
        with pytest.raises(RejectedImage, match="its bytes do not fit the archive's checksum"):
            read_one(path)
        # What bzip2 looks back in is 900 kB, which it holds four times.
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_what_lzma_asks_for_to_look_back_is_not_held_for_a_small_member(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"chip" * 1_000}, LZMA)
    data = bytearray(path.read_bytes())
    at = data.index(b"a.jpg") + 5 + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        assert read_one(path) == b"chip" * 1_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def literals(data: bytes) -> bytes:
    """What LZMA makes of bytes that it does not look for again, with no mark of its end, as in most zips.

    By the LZMA specification of 7-Zip's SDK, `lc`, `lp` and `pb` being 0.
    """
    low, span, out, cache, waiting = 0, 0xFFFFFFFF, bytearray(), 0, 1
    is_match, tree = [1024], [1024] * 256

    def shift() -> None:
        nonlocal low, cache, waiting
        if low < 0xFF000000 or low >= 1 << 32:
            out.extend((cache + (low >> 32)) & 0xFF if i == 0 else (0xFF + (low >> 32)) & 0xFF
                       for i in range(waiting))  # fmt: skip
            waiting, cache = 0, (low >> 24) & 0xFF
        waiting, low = waiting + 1, (low & 0x00FFFFFF) << 8

    def bit(chances: list[int], at: int, value: int) -> None:
        nonlocal low, span
        bound = (span >> 11) * chances[at]
        if value:
            low, span = low + bound, span - bound
            chances[at] -= chances[at] >> 5
        else:
            span = bound
            chances[at] += (2048 - chances[at]) >> 5
        while span < 1 << 24:
            span <<= 8
            shift()

    for byte in data:
        bit(is_match, 0, 0)
        node = 1
        for place in range(7, -1, -1):
            value = byte >> place & 1
            bit(tree, node, value)
            node = node << 1 | value
    for _ in range(5):
        shift()
    return b"\x09\x14\x05\0" + struct.pack("<BI", 0, 4096) + bytes(out)


@pytest.mark.parametrize("data", [b"a", b"chip", bytes(1_000), random.Random(2).randbytes(20_000)], ids=len)
def test_lzma_is_read_where_its_end_is_not_marked(tmp_path: Path, data: bytes) -> None:
    path = zip_by_hand(tmp_path / "a.zip", {"a.jpg": (data, literals(data))}, LZMA)
    assert read_one(path) == data
    with tables.opened(str(path), "--labels") as plain:
        assert plain.read() == data


@pytest.mark.parametrize(("lc", "lp", "pb"), [(4, 0, 4), (0, 4, 0), (1, 3, 2)])
def test_lzma_is_read_by_every_model_that_it_may_have(tmp_path: Path, lc: int, lp: int, pb: int) -> None:
    model = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": 1 << 16}
    body = lzma.compress(b"chip" * 1_000, lzma.FORMAT_RAW, filters=[model])
    packed = b"\x09\x14\x05\0" + struct.pack("<BI", (pb * 5 + lp) * 9 + lc, 1 << 16) + body
    path = zip_by_hand(tmp_path / "a.zip", {"a.jpg": (b"chip" * 1_000, packed)}, LZMA)
    assert read_one(path) == b"chip" * 1_000


@pytest.mark.parametrize(("place", "value"), [(2, 4), (4, 5), (4, 9 * 5 * 5), (4, 255)])
def test_what_lzma_does_not_know_of_itself_is_rejected(tmp_path: Path, place: int, value: int) -> None:
    packed = bytearray(literals(b"chip"))
    packed[place] = value
    path = zip_by_hand(tmp_path / "a.zip", {"a.jpg": (b"chip", bytes(packed))}, LZMA)
    with pytest.raises(RejectedImage) as caught:
        read_one(path)
    assert caught.value.args == (UNREADABLE, "Invalid or unsupported options")


def test_one_that_several_processes_have_packed_piece_by_piece_is_read(tmp_path: Path) -> None:
    pieces = [b"chip" * 1_000, b"chips" * 100_000]
    skipped = zstd.SKIPPED + (4).to_bytes(4, "little") + b"\0\1\2\3"
    packed = b"".join(skipped + zstd_of(piece) for piece in pieces)
    path = zip_by_hand(tmp_path / "a.zip", {"a.jpg": (b"".join(pieces), packed)}, ZSTANDARD)
    assert read_one(path) == b"".join(pieces)
    packed = b"".join(map(bz2.compress, pieces))
    path = zip_by_hand(tmp_path / "b.zip", {"a.jpg": (b"".join(pieces), packed)}, BZIP2)
    assert read_one(path) == b"".join(pieces)


def test_one_of_zstandard_that_looks_back_farther_than_memory_allows_is_rejected(tmp_path: Path) -> None:
    far = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=far).compressobj()
    packed = frame.compress(b"abc") + frame.flush()
    path = zip_by_hand(tmp_path / "a.zip", {"a.jpg": (b"abc", packed)}, ZSTANDARD)
    with pytest.raises(RejectedImage, match="too much memory") as caught:
        read_one(path)
    assert caught.value.reason == UNREADABLE


@pytest.mark.parametrize(("number", "name"), [(9, "Deflate64"), (98, "PPMd"), (97, "method 97")])
def test_by_any_other_method_one_is_a_reject_and_most_of_a_zip_a_sentence(
    archive: Archive, run: Run, tmp_path: Path, number: int, name: str
) -> None:
    chips = {f"chip_{i}": planet(noise(i)) for i in range(5)}
    for chip, data in chips.items():
        archive.put(chip, data)
    archive.write_labels()
    flags = ("--images", f"{tmp_path}/a b.zip", "--labels", str(archive.labels))
    path = zip_of(tmp_path / "a b.zip", {f"{chip}.jpg": data for chip, data in chips.items()}, STORED)
    content = bytearray(path.read_bytes())

    def foreign(count: int) -> None:
        at = 0
        for _ in range(count):
            at = content.index(b"PK\x01\x02", at + 1)
            content[at + 10] = number
        path.write_bytes(content)

    foreign(2)
    done = run(None, *flags, "--max_bad_fraction", "0.5")
    assert done.code == 0, done.err
    assert sorted(done.names) == ["chip_2", "chip_3", "chip_4"]
    said = f"the archive holds it packed by {name}"
    assert [(row["name"], row["reason"], row["detail"]) for row in done.rejects] == [
        ("chip_0", "unreadable", said), ("chip_1", "unreadable", said)
    ]  # fmt: skip
    told = done.canopy["images"]
    assert (told["found"], told["written"], told["rejected"]) == (5, 3, 2)

    foreign(3)
    done = run(None, *flags, output=tmp_path / "none")
    assert done.code == 2
    assert done.err == (
        f"error: --images: {path}, 3 of whose 5 images are packed by {name}, cannot be read as it is; "
        "unpack it with `7z x 'a b.zip'` and name the folder\n"
    )
    assert not done.folder.exists()


def test_a_zip_of_links_that_lead_nowhere_is_not_taken_for_one_that_cannot_be_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in "ab":
            link = zipfile.ZipInfo(f"{name}.jpg")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, b"nowhere")
    assert len(list_images([str(tmp_path / "a.zip")])) == 2


def test_a_zip_that_wants_a_password_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {f"{name}.jpg": b"chip" for name in "abc"}, STORED)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"))
    with pytest.raises(
        UserError, match=r"a\.zip, 3 of whose 3 images are encrypted, cannot be read as it is"
    ):
        list_images([str(path)])


@pytest.mark.parametrize("method", methods.READABLE)
def test_no_byte_is_unpacked_where_none_is_wanted(method: int) -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert methods.unpack(method, packer.compress(b"chip") + packer.flush(), 0) == b""
