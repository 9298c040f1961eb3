"""Finding images in folders, globs and archives."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from beam_jobs import storage
from beam_jobs.images import UNREADABLE, RejectedImage
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader, name_of
from canopy import progress
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import pack, read_all, tar_of, zip_of
from tests.beam_jobs.test_finding import not_as_root

HOSTILE = [
    "../../evil.jpg",
    "/etc/absolute.jpg",
    "..\\..\\windows.jpg",
    "deep/er/still.JPEG",
    "line\nbreak.jpg",
    'quo"te,comma.jpg',
    "emoji 🌳.jpg",
    "x" * 180 + ".jpg",
    "-rf.jpg",
    "$(touch owned).jpg",
]


def test_folders_are_searched_to_the_bottom_and_other_files_counted(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPG", "sub/deep/c.jpeg", "notes.txt", "sub/.hidden.jpg", "sub/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    listing = list_images([str(tmp_path)])
    assert [source.name for source in listing] == ["a", "b", "c"]
    assert listing.ignored == 3
    assert list_images([f"{tmp_path}/sub", f"{tmp_path}/a.JPG", str(tmp_path)]).ignored == 2 + 3
    assert read_all(tmp_path)["c"] == b"sub/deep/c.jpeg"


def test_what_an_earlier_job_wrote_is_not_counted_hidden_or_not(tmp_path: Path) -> None:
    for name in ("a.jpg", "notes.txt", "ours.txt", ".ours"):
        (tmp_path / name).touch()
    assert list_images([str(tmp_path)], lambda path: "ours" in path).ignored == 1


@pytest.mark.parametrize("place", ["folder", "glob", "a.zip", "a.tar", "store", "store's glob"])
def test_the_same_files_are_the_same_images_wherever_they_lie(
    place: str, tmp_path: Path, server: Faulty
) -> None:
    root = tmp_path / ".cache" / "in"  # what is named may be hidden
    good = ("t/a.jpg", "t/b.c.jpg", "t/deep/d.jpg")
    passed_over = (
        "t/.hidden.jpg", "t/.thumbs/e.jpg", ".git/f.tar.gz", "__MACOSX/g.jpg", "@eaDir/h.jpg", "t/notes.txt",
    )  # fmt: skip
    for name in (*good, *passed_over):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
        storage.write_bytes(f"gs://here/.cache/in/{name}", b"x")
    named = {"folder": f"{root}", "glob": f"{root}/**", "store": "gs://here/.cache/in"}
    pattern = named.get(place, "gs://here/.cache/in/**")
    if place in ("a.zip", "a.tar"):
        pattern = shutil.make_archive(
            str(root.parent / "a"), place[2:], root, "."
        )  # a tar's names begin with ./
    listing = list_images([pattern])
    assert list(listing.names()) == ["a", "b.c", "d"]
    if place != "glob":  # the system's does not match what is hidden, and matches folders too
        assert listing.ignored == len(passed_over)


@pytest.mark.parametrize(
    "place", ["folder", "folder/*.jpg", "a.zip", "a.tar", "gs://here", "gs://here/*.jpg"]
)
def test_a_long_listing_says_how_far_it_is(
    place: str,
    tmp_path: Path,
    server: Faulty,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "COUNTED", 2)
    files = {f"{i}.jpg": b"x" for i in range(5)}
    if place in ("a.zip", "a.tar"):
        pack(tmp_path / place, files)
    for name, data in files.items():
        storage.make_folder(f"{tmp_path}/folder")
        storage.write_bytes(f"{tmp_path}/folder/{name}", data)
        storage.write_bytes(f"gs://here/{name}", data)
    assert len(list_images([place if "://" in place else f"{tmp_path}/{place}"])) == 5
    shown = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown[:2] == ["listing: 2 files", "listing: 4 files"]


def test_overlapping_patterns_count_an_image_once_and_their_order_does_not_matter(tmp_path: Path) -> None:
    for name in ("one/a.jpg", "one/b.jpg", "two/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    below = ("one", "*/*.jpg", "one/a.jpg", "./one/", "./o*/")
    patterns = [f"{tmp_path}/{pattern}" for pattern in below]
    listings = [list_images(patterns), list_images(patterns[::-1])]
    for listing in listings:
        assert [source.path for source in listing] == [
            f"{tmp_path}/{x}.jpg" for x in ("one/a", "one/b", "two/c")
        ]


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_an_archives_images_come_in_the_order_of_their_paths(tmp_path: Path, kind: str) -> None:
    names = ["t/b.jpg", "t/notes.txt", "s/c.jpg", "t/a.jpg"]
    pack(tmp_path / kind, {name: name.encode() for name in names})
    with Reader() as reader:
        found = [(source.member, reader.read(source).decode()) for source in list_images([str(tmp_path)])]
    assert found == [(name, name) for name in ("s/c.jpg", "t/a.jpg", "t/b.jpg")]


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_of_two_members_of_a_path_the_later_one_comes_first_as_unpacking_leaves_it(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / kind
    pack(path, {"t/a.jpg": b"old", "t/b.jpg": b"b"})
    if kind == "a.zip":
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("t/a.jpg", b"new")
    else:
        added, _ = tar_of(tmp_path / "added", {"t/a.jpg": b"new"})
        path.write_bytes(path.read_bytes() + added.read_bytes())
    listing = list_images([str(path)])
    with Reader() as reader:
        found = [(source.name, reader.read(source)) for source in listing]
    assert found == [("a", b"new"), ("a", b"old"), ("b", b"b")]


@pytest.mark.parametrize("named", ["in", "in/a.zip/t"])
def test_an_archive_that_may_not_be_looked_at_is_one_sentence(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pack(folder / "a.zip", {"t/a.jpg": b"a"})
    folder.chmod(0o444)  # to be listed, and no more
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    try:
        with not_as_root(), pytest.raises(UserError, match=r"cannot .* in/a.zip: access is denied"):
            list_images([named])
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("up", [".", "sub", "sub/deep"])
def test_links_in_a_circle_end(tmp_path: Path, up: str) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / "deep" / "a.jpg").write_bytes(b"x")
    (tmp_path / "sub" / "deep" / "up").symlink_to(tmp_path / up)
    assert len(list_images([str(tmp_path)])) == 1


@pytest.mark.parametrize("named", ["", "/*"], ids=["folder", "glob"])
def test_links_that_cannot_be_followed_are_images_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "long.jpg").symlink_to("x" * 300 + ".jpg")
    (tmp_path / "circle.txt").symlink_to("circle.txt")
    (tmp_path / "good.jpg").write_bytes(b"x")
    listing = list_images([f"{tmp_path}{named}"])
    assert listing.ignored == 1
    with Reader() as reader:
        for source in listing:
            if source.name == "good":
                assert reader.read(source) == b"x"
                continue
            with pytest.raises(RejectedImage) as caught:
                reader.read(source)
            assert caught.value.reason == UNREADABLE
    assert len(listing) == 3


def test_a_file_that_is_named_is_an_image_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("scan", ".hidden.jpg", "map.png"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_images([str(path) for path in tmp_path.iterdir()])
    assert (list(listing.names()), listing.ignored) == ([".hidden", "map.png", "scan"], 0)


def test_a_folder_with_magic_characters_is_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(b"x")
    assert len(list_images([str(folder)])) == 1


@pytest.mark.parametrize("kind", ["stored.zip", "deflated.zip", "plain.tar", "LOUD.ZIP", "LOUD.TAR"])
def test_hostile_names_in_archives_are_only_names(tmp_path: Path, kind: str) -> None:
    members = {name: os.urandom(50) + name.encode() for name in HOSTILE}
    path = tmp_path / "in" / kind
    path.parent.mkdir()
    if kind.lower().endswith("tar"):
        tar_of(path, members)
    else:
        zip_of(path, members, zipfile.ZIP_STORED if kind.startswith("stored") else zipfile.ZIP_DEFLATED)
    before = sorted(tmp_path.rglob("*"))
    found = read_all(path)
    assert {"evil", "absolute", "windows", "still", "line\nbreak", "emoji 🌳", "-rf"} <= set(found)
    assert found == {name_of(name): data for name, data in members.items()}
    assert sorted(tmp_path.rglob("*")) == before


def test_what_macos_and_folders_add_to_archives_is_passed_over(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "a.zip", {"t/": b"", "t/a.jpg": b"1", "__MACOSX/t/._a.jpg": b"2", "t/x.txt": b"3"}
    )
    listing = list_images([str(path)])
    assert [source.member for source in listing] == ["t/a.jpg"]
    assert listing.ignored == 2


def test_a_link_out_of_a_tar_is_never_followed(tmp_path: Path) -> None:
    path, _ = tar_of(tmp_path / "a.tar", {"a.jpg": b"1"})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("evil.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with Reader() as reader:
        first, second = list_images([str(path)])
        assert reader.read(first) == b"1"
        with pytest.raises(RejectedImage, match="as a link to what is not there"):
            reader.read(second)


def test_empty_inputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(b"x")
    zip_of(tmp_path / "a.zip", {"readme.txt": b"x"})
    refused = {
        "empty": "no JPEG",
        "other": "1 other",
        "a.zip": r"no JPEG in .*a\.zip$",
        "*.gif": "no JPEG",
        "gone": "does not exist",
    }
    for pattern, said in refused.items():
        with pytest.raises(UserError, match=said):
            list_images([str(tmp_path / pattern)])
    (tmp_path / "large.tar.gz").write_bytes(b"damaged, as would show after minutes")
    with pytest.raises(UserError, match=r"no JPEG in .*\.gif"):
        list_images([str(tmp_path / "large.tar.gz"), str(tmp_path / "*.gif")])


@pytest.mark.parametrize("pattern", ["in", "in/*"], ids=["folder", "glob"])
def test_what_lies_beside_images_and_holds_none_is_passed_over_unless_it_is_named(
    tmp_path: Path, pattern: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"1")
    zip_of(folder / "more.zip", {"b.jpg": b"2", "x.txt": b"3"})
    zip_of(folder / "train_v2.csv.zip", {"train_v2.csv": b"3"})
    tar_of(folder / "notes.tar", {"notes.txt": b"3"})
    for name in ("labels.csv.gz", "TAGS.CSV.GZ", ".labels.csv.gz", "._more.zip", ".x.tar.gz"):
        (folder / name).write_bytes(b"?")
    listing = list_images([f"{tmp_path}/{pattern}"])
    assert [source.name for source in listing] == ["a", "b"]
    assert listing.ignored == 1 + 2 + (5 if pattern == "in" else 2)  # a glob does not match hidden files
    for name, said in {
        "train_v2.csv.zip": "no JPEG",
        "labels.csv.gz": "gunzip",
        "._more.zip": "no readable zip",
    }.items():
        with pytest.raises(UserError, match=said):
            list_images([str(folder), str(folder / name)])


def test_a_folder_with_one_archive_of_images_may_hold_others(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"a.txt": b"1"})
    pack(tmp_path / "b.zip", {"b.jpg": b"2", "b.txt": b"3"})
    listing = list_images([str(tmp_path)])
    assert [source.name for source in listing] == ["b"]
    assert listing.ignored == 2


def test_a_folder_with_nothing_but_archives_without_images_is_refused(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.csv.zip", {"a.csv": b"x"})
    (tmp_path / "b.csv.gz").write_bytes(b"?")
    with pytest.raises(UserError, match="2 other files"):
        list_images([str(tmp_path)])


FOLDERS = {
    "planet/train-jpg/a.jpg": b"1", "planet/train-jpg/more/b.jpg": b"2", "planet/train-jpg.txt": b"?",
    "planet/test-jpg/c.jpg": b"3", "planet/test-jpg-additional/d.jpg": b"4", "planet/more.zip": b"?",
    "planet/train-jpg/notes.txt": b"?",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["in.zip", "in.tar"])
@pytest.mark.parametrize(
    ("within", "names", "ignored"),
    [
        (["planet/train-jpg"], "ab", 1),
        (["planet//train-jpg/"], "ab", 1),
        (["./planet/x/../train-jpg/more"], "b", 0),
        (["planet/test-jpg"], "c", 0),
        (["planet/test-jpg/c.jpg"], "c", 0),
        (["planet/test-jpg", "planet/test-jpg-additional"], "dc", 0),
        (["planet/train-jpg/more", "planet/train-jpg"], "ab", 1),
    ],
)
def test_a_folder_within_an_archive_is_meant_by_its_path_behind_the_archives(
    tmp_path: Path, kind: str, within: list[str], names: str, ignored: int
) -> None:
    pack(tmp_path / kind, FOLDERS)  # the archive within would be refused
    listing = list_images([f"{tmp_path}/{kind}/{folder}" for folder in within])
    assert "".join(listing.names()) == names
    assert listing.ignored == ignored
    assert {source.container for source in listing} == {f"{tmp_path}/{kind}"}


def test_a_folder_within_an_archive_is_no_more_where_all_of_the_archive_is_meant(tmp_path: Path) -> None:
    pack(tmp_path / "in.zip", {"a/a.jpg": b"1", "b/b.jpg": b"2", "c.txt": b"3"})
    for patterns in (["in.zip", "in.zip/a"], ["in.zip/a", "."], ["in.zip/"]):
        listing = list_images([f"{tmp_path}/{pattern}" for pattern in patterns])
        assert list(listing.names()) == ["a", "b"]
        assert listing.ignored == 1


def test_a_folder_within_an_archive_is_looked_for_in_no_other(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {"t/a.jpg": b"1", "u/x.jpg": b"2"})
    pack(tmp_path / "b.tar", {"u/b.jpg": b"3", "t/x.jpg": b"4"})
    assert list(list_images([f"{tmp_path}/a.zip/t", f"{tmp_path}/b.tar/u"]).names()) == ["a", "b"]


@pytest.mark.parametrize("kind", ["in.zip", "in.tar"])
def test_a_folder_that_an_archive_lacks_is_named_with_those_that_hold_images(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / kind
    pack(path, FOLDERS)
    there = ", ".join(f"{path}/planet/{name}" for name in ("test-jpg", "test-jpg-additional", "train-jpg"))
    for folder in ("planet/train", "../planet", "planet/train-jpg.txt", "TEST-JPG", "planet/train-jpg/*"):
        said = re.escape(f"--images: no JPEG in {path}/{folder} (there are some in {there} …)")
        with pytest.raises(UserError, match=f"{said}$"):
            list_images([f"{path}/planet/train-jpg", f"{path}/{folder}"])
    pack(path, {"a.jpg": b"1", "b.txt": b"2"})
    with pytest.raises(UserError, match=rf"/planet \(there are some in {re.escape(str(path))} itself\)$"):
        list_images([f"{path}/planet"])
    pack(path, {"b.txt": b"2"})
    with pytest.raises(UserError, match=rf"no JPEG in .*{kind}/planet$"):
        list_images([f"{path}/planet"])


def test_a_folder_that_is_named_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in.zip" / "a").mkdir(parents=True)
    (tmp_path / "in.zip" / "a" / "a.jpg").write_bytes(b"1")
    assert list(list_images([f"{tmp_path}/in.zip/a"]).names()) == ["a"]


def test_backslashes_part_folders_within_an_archive_as_well(tmp_path: Path) -> None:
    pack(tmp_path / "in.zip", {"planet\\train-jpg\\a.jpg": b"1", "planet\\b.jpg": b"2"})
    assert list(list_images([f"{tmp_path}/in.zip/planet/train-jpg"]).names()) == ["a"]


def test_a_folder_within_an_archive_in_a_store_is_meant_likewise(tmp_path: Path, server: Faulty) -> None:
    pack(tmp_path / "in.zip", FOLDERS)
    storage.write_bytes("gs://here/in.zip", (tmp_path / "in.zip").read_bytes())
    listing = list_images(["gs://here/in.zip/planet/train-jpg"])
    with Reader() as reader:
        assert [reader.read(source) for source in listing] == [b"1", b"2"]
