"""Objects in S3, with a real server of its protocol."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from beam_jobs import storage
from beam_jobs.listing import list_images
from beam_jobs.scoring import engines
from beam_jobs.sources import Reader
from beam_jobs.stores import s3
from beam_jobs.stores.objects import UnavailableError
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty, running
from tests.beam_jobs.making import Archive, Run
from tests.beam_jobs.stores import each_store


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 client, and the bucket `here`, empty."""
    settings = {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "me"}
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3._client.cache_clear()
    client = s3._client(os.getpid())
    client.create_bucket(Bucket="here")
    yield client
    for found in client.list_objects_v2(Bucket="here").get("Contents", ()):
        client.delete_object(Bucket="here", Key=found["Key"])
    s3._client.cache_clear()


def test_objects_are_written_whole_and_read_in_parts(bucket: Any) -> None:
    each_store.writes_whole_and_reads_in_parts("s3://here")


def test_a_failed_writer_leaves_no_object(bucket: Any) -> None:
    each_store.leaves_no_object_of_a_failed_writer("s3://here")


def test_patterns_match_names_within_a_folder(bucket: Any) -> None:
    for name in ("t/a.jpg", "t/b.jpg", "t/u/c.jpg", "t/a.jpg.old"):
        storage.write_bytes(f"s3://here/{name}", b"x")
    assert storage.match("s3://here/t/*.jpg") == ["s3://here/t/a.jpg", "s3://here/t/b.jpg"]
    assert len(storage.match("s3://here/**")) == 4
    assert storage.list_files("s3://here/t") == ["a.jpg", "a.jpg.old", "b.jpg"]
    assert [source.name for source in list_images(["s3://here/t"])] == ["a", "b", "c"]


@pytest.mark.parametrize("named", ["t", "t/", "**"])
def test_the_object_that_a_console_makes_of_a_folder_is_neither_its_images_nor_a_file(
    bucket: Any, named: str
) -> None:
    for name in ("t/", "t/u/", "t/a.jpg", "t/notes.txt"):
        storage.write_bytes(f"s3://here/{name}", b"")
    listing = list_images([f"s3://here/{named}"])
    assert (list(listing.names()), listing.ignored) == (["a"], 1)


def test_an_export_is_copied_where_a_mount_has_made_objects_of_its_folders(bucket: Any) -> None:
    for name in ("m/", "m/variables/", "m/saved_model.pb", "m/variables/variables.index"):
        storage.write_bytes(f"s3://here/{name}", b"")
    assert storage.list_files("s3://here/m") == ["saved_model.pb"]
    with engines._on_this_machine("s3://here/m") as folder:
        found = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
    assert found == {"saved_model.pb", "variables/variables.index"}


def test_what_is_not_there_is_one_sentence(bucket: Any) -> None:
    for attempt in (
        lambda: storage.read_bytes("s3://here/gone.csv"),
        lambda: storage.read_bytes("s3://here"),
        lambda: list_images(["s3://gone/t"]),
        lambda: list_images(["s3://here/gone"]),
        lambda: storage.write_bytes("s3://gone/a", b"x"),
        lambda: storage.write_bytes("s3://gone/a", b"x" * 20_000_000),
        lambda: storage.list_files("s3://gone/a"),
    ):
        with pytest.raises(UserError, match=r"s3://(here|gone)\S* does not exist|it does not exist"):
            attempt()


def test_a_listing_goes_on_behind_its_first_page(bucket: Any) -> None:
    for name in "abc":
        storage.write_bytes(f"s3://here/{name}.jpg", b"x")
    bucket.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: {**params, "MaxKeys": 2}
    )
    assert [source.name for source in list_images(["s3://here"])] == ["a", "b", "c"]


def test_a_name_that_no_bucket_can_have_is_a_mistake_and_nothing_to_try_again(bucket: Any) -> None:
    for doing in (
        lambda: storage.read_bytes("s3://my chips/a"),
        lambda: list_images(["s3://my chips"]),
        lambda: storage.write_bytes("s3://my chips/a", b"x"),
    ):
        with pytest.raises(UserError, match='Invalid bucket name "my chips"') as caught:
            doing()
        assert "\n" not in str(caught.value)


def test_without_credentials_the_sentence_says_what_to_set(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3._client.cache_clear()
    with pytest.raises(UserError, match="S3 needs credentials: run `aws configure`, or set"):
        storage.read_bytes("s3://here/a")


def test_an_image_that_cannot_be_fetched_stops_the_job_where_the_store_fails(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes("s3://here/a.jpg", b"x")
    source = list_images(["s3://here"])[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    s3._client.cache_clear()
    with Reader() as reader, pytest.raises(UnavailableError, match="s3://here/a"):
        reader.read(source)


@pytest.mark.parametrize("size", [1, 20_000_000], ids=["in one request", "in parts"])
def test_an_upload_that_reaches_no_store_is_worth_another_try(
    size: int, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    s3._client.cache_clear()
    with pytest.raises(UnavailableError, match="S3 fails at s3://here/a: Could not connect"):
        storage.write_bytes("s3://here/a", b"x" * size)


def test_an_upload_tells_its_own_error_where_another_is_being_handled(bucket: Any) -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        with pytest.raises(UserError, match="cannot write s3://gone/a: it does not exist"):
            storage.write_bytes("s3://gone/a", b"x")


@pytest.fixture
def cutting(bucket: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A proxy before the server that cuts answers within their body; so far it cuts none."""
    proxy = Faulty(int(endpoint.rpartition(":")[2]))
    proxy.kinds = ["cut within"]
    with running(proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3._client.cache_clear()
        yield proxy


def test_a_body_that_is_cut_is_asked_for_again(cutting: Faulty) -> None:
    data = os.urandom(300_000)
    storage.write_bytes("s3://here/a.bin", data)
    cutting.share = 0.5
    for _ in range(2):
        assert storage.read_bytes("s3://here/a.bin") == data
        assert storage.read_range("s3://here/a.bin", 1_000, 200_000) == data[1_000:201_000]
    assert cutting.faults["cut within"] > 1


def test_a_body_that_is_always_cut_stops_the_job(cutting: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes("s3://here/a.bin", b"x" * 1_000)
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    cutting.share = 1.0
    with pytest.raises(UnavailableError, match="s3://here/a"):
        storage.read_bytes("s3://here/a.bin")
    assert cutting.faults["cut within"] == 3


def test_a_store_that_is_busy_is_asked_again(cutting: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    s3._client.cache_clear()
    cutting.kinds, cutting.share = ["503"], 1.0
    with pytest.raises(UnavailableError, match="s3://here/a"):
        s3.exists("s3://here/a")
    assert cutting.requests == 1 + 3


def test_names_that_differ_by_a_slash_are_different_images(bucket: Any) -> None:
    for name in ("in/", "in/c1.jpg", "in//c1.jpg", "in//c3.jpg", "c4.jpg", "/c5.jpg"):  # consoles make in/
        storage.write_bytes(f"s3://here/{name}", name.encode())
    with Reader() as reader:
        for pattern, wanted in {
            "in": ["in/c1.jpg", "in//c1.jpg", "in//c3.jpg"],
            "in/": ["in/c1.jpg", "in//c1.jpg", "in//c3.jpg"],
            "in//c3.jpg": ["in//c3.jpg"],
            "in//*.jpg": ["in//c1.jpg", "in//c3.jpg"],
            "": ["/c5.jpg", "c4.jpg", "in/c1.jpg", "in//c1.jpg", "in//c3.jpg"],
        }.items():
            found = list_images([f"s3://here/{pattern}"])
            assert sorted(reader.read(source).decode() for source in found) == sorted(wanted)
            assert {source.path for source in found} == {f"s3://here/{name}" for name in wanted}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("AWS_PROFILE", "nobodys", r"profile \(nobodys\)"), ("AWS_ENDPOINT_URL", "nowhere", "nowhere")],
)
def test_settings_that_boto3_refuses_are_one_sentence(
    bucket: Any, name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    s3._client.cache_clear()
    with pytest.raises(UserError, match=f"S3 cannot be used as it is set up: .*{said}") as caught:
        list_images(["s3://here/in"])
    assert "\n" not in str(caught.value)


def test_a_pattern_that_is_none_is_one_sentence(bucket: Any) -> None:
    with pytest.raises(UserError, match=r"cannot list s3://here/\[z-a\]\.jpg: bad character range z-a"):
        list_images(["s3://here/[z-a].jpg"])


def test_an_archive_in_s3_becomes_the_same_bytes_as_one_on_disk(
    bucket: Any, archive: Archive, run: Run, tmp_path: Path
) -> None:
    archive.fill(12)
    local = run(archive, "--num_shards", "2", output=tmp_path / "local")
    for path in archive.folder.iterdir():
        storage.write_bytes(f"s3://here/in/{path.name}", path.read_bytes())
    storage.write_bytes("s3://here/labels.csv", archive.labels.read_bytes())
    places = ["--images", "s3://here/in", "--labels", "s3://here/labels.csv", "--output", "s3://here/out"]
    done = run(None, *places, "--num_shards", "2")
    assert done.code == 0, done.err
    assert {name: storage.read_bytes(f"s3://here/out/{name}") for name in local.shards} == local.shards
    assert storage.exists("s3://here/out/dataset_info.json")
