import hashlib
import io
import re
import stat
import sys
import tarfile
import threading
import zipfile
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from wsolkit import cli, datasets
from wsolkit.datasets import Archive, _downloads
from wsolkit.datasets._downloads import download, fetch, unpack
from wsolkit.errors import DataError

CONTENT = bytes(range(256)) * 9000  # 2.2 MiB, so more than one block


class Server(ThreadingHTTPServer):
    """A file server that can cut connections, ignore Range, redirect and fail, and that remembers what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cut_after, self.status, self.redirect = CONTENT, True, None, 200, None
        self.asked = []

    def archive(self, content=None, **changes) -> Archive:
        checksum = f"md5:{hashlib.md5(self.content if content is None else content).hexdigest()}"
        fields = {"name": "file.bin", "url": f"http://127.0.0.1:{self.server_port}/file.bin", "checksum": checksum}
        return Archive(**{**fields, "bytes": None, "unpacks_to": "top", "licence": "free", **changes})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_download_is_complete_and_not_repeated(server, tmp_path):
    path = download(server.archive(), tmp_path / "new")
    assert path == tmp_path / "new" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert visible(tmp_path / "new") == ["file.bin"]
    download(server.archive(), tmp_path / "new")
    assert server.asked == ["bytes=0-"]


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.cut_after = 1_500_000
    with pytest.raises(DataError, match="1500000 bytes read.*same command again to resume"):
        download(server.archive(), tmp_path)
    assert visible(tmp_path) == ["file.bin.part"]
    server.cut_after = None
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=0-", f"bytes={2**20}-"]
    assert visible(tmp_path) == ["file.bin"]


def test_without_ranges_a_download_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"half of another try")
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=19-"]


def test_a_part_that_is_already_whole_is_taken(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert download(server.archive(), tmp_path).read_bytes() == CONTENT
    assert visible(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("begun", [None, b"of another file"])
def test_a_wrong_checksum_leaves_nothing(server, tmp_path, begun):
    if begun:
        (tmp_path / "file.bin.part").write_bytes(begun)
    archive = server.archive() if begun else server.archive(b"something else")
    with pytest.raises(DataError, match=f"expected {archive.checksum}. It was removed"):
        download(archive, tmp_path)
    assert visible(tmp_path) == []


def test_a_file_of_the_users_that_is_not_genuine_stays(server, tmp_path):
    (tmp_path / "file.bin").write_text("mine")
    with pytest.raises(DataError, match="file.bin differs from http.*Remove"):
        download(server.archive(), tmp_path)
    assert (tmp_path / "file.bin").read_text() == "mine"
    assert server.asked == []


def test_errors_of_the_server_are_told(server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match="404 .*Not Found"):
        download(server.archive(), tmp_path)
    server.server_close()
    nobody = server.archive(url="http://127.0.0.1:9/file.bin")
    with pytest.raises(DataError, match="Cannot download http://127.0.0.1:9/.*same command again"):
        download(nobody, tmp_path)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_only_the_web_is_fetched(server, tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    url = {"file": secret.as_uri(), "ftp": "ftp://127.0.0.1/x", "data": "data:,x"}[scheme]
    for archive in (server.archive(url=url), server.archive()):
        with pytest.raises(DataError, match=f"No connection adapters were found for .{scheme}:"):
            download(archive, tmp_path / "to")
        server.redirect = url
    assert visible(tmp_path / "to") == []


# Unpacking


def make_tar(path, members, mode="w:gz"):
    """Members: name and content; None is a folder, a TarInfo is taken as it is."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            if isinstance(content, bytes):
                info.size, info.mode = len(content), 0o6777
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def make_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}/" if content is None else name, b"" if content is None else content)
    return path


MAKERS = {"a.tgz": make_tar, "a.zip": make_zip}
FILES = {"top": None, "top/sub": None, "top/sub/one.txt": b"one", "top/two.txt": b"2" * 3_000_000, "readme": b"no"}


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MAKERS)
def test_everything_is_unpacked_or_only_what_is_below_a_folder(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, FILES)
    assert tree(unpack(archive, tmp_path / "all")) == {k: v for k, v in FILES.items() if v is not None}
    below = tree(unpack(archive, tmp_path / "deep" / "er", top="top"))
    assert below == {"sub/one.txt": b"one", "two.txt": b"2" * 3_000_000}
    assert stat.S_IMODE((tmp_path / "deep" / "er" / "two.txt").stat().st_mode) & 0o7022 == 0
    assert visible(tmp_path) == [name, "all", "deep"]


@pytest.mark.parametrize("name", MAKERS)
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    for evil in ("../evil", "top/../../evil", "/evil", r"..\evil", "C:/evil"):
        archive = MAKERS[name](tmp_path / name, {"top/good.txt": b"good", evil: b"evil"})
        for top in ("", "top"):
            with pytest.raises(DataError, match="not safe to unpack: .*evil' is a link, a device, or leads out of it"):
                unpack(archive, tmp_path / "out", top)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", MAKERS)
def test_folders_are_checked_and_made_like_files(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, {"top/good.txt": b"good", "../evil": None})
    with pytest.raises(DataError, match="not safe to unpack: '../evil"):
        unpack(archive, tmp_path / "out")
    unpack(MAKERS[name](tmp_path / name, {"top/empty": None, "top/good.txt": b"good"}), tmp_path / "out")
    assert (tmp_path / "out" / "top" / "empty").is_dir()


def test_links_and_devices_are_refused(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("top/link")
        member.type, member.linkname = kind, "good.txt"
        make_tar(tmp_path / "a.tgz", {"top/good.txt": b"good", "top/link": member})
        with pytest.raises(DataError, match="not safe to unpack: 'top/link' is a link, a device, or leads out of it"):
            unpack(tmp_path / "a.tgz", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("top/link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="not safe to unpack: 'top/link' is a link, a device, or leads out of it"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tgz", "a.zip"]


@pytest.mark.parametrize("name", MAKERS)
def test_an_existing_folder_is_not_overwritten(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, FILES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="out exists already and is not overwritten"):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"mine.txt": b"mine"}


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_that_unpacks_to_too_much_leaves_nothing(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, {"top/a": b"0" * 1_500_000, "top/b": b"0" * 1_500_000})
    assert archive.stat().st_size < 20_000
    with pytest.raises(DataError, match="grows to more than 2999999 bytes"):
        unpack(archive, tmp_path / "out", limit=2_999_999)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    unpack(archive, tmp_path / "out", limit=3_000_000)


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_archive_leaves_nothing(tmp_path, name):
    archive = MAKERS[name](tmp_path / name, {"top/a": hashlib.sha256(b"x").digest() * 99_000})
    data = bytearray(archive.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    archive.write_bytes(data)
    with pytest.raises(DataError, match="Cannot unpack"):
        unpack(archive, tmp_path / "out")
    archive.write_bytes(b"no archive at all")
    with pytest.raises(DataError, match="Cannot unpack .*: File is not a zip file"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_doubled_name_and_a_missing_top_are_refused(tmp_path):
    archive = make_tar(tmp_path / "a.tar", FILES, "w")
    with pytest.raises(DataError, match="Cannot unpack .*other"):
        unpack(archive, tmp_path / "out", top="other")
    with tarfile.open(archive, "a") as opened:
        opened.addfile(tarfile.TarInfo("top/two.txt"), io.BytesIO())
    with pytest.raises(DataError, match="the same name twice"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


# From the shell


@pytest.fixture
def wsolkit(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["wsolkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


def tiny_imagenet(folder):
    boxes = "n01_0.JPEG\t0\t0\t9\t9\nn01_9.JPEG\t0\t0\t9\t9\n"
    lists = {
        f"{folder}/wnids.txt": b"n01\n",
        f"{folder}/train/n01/n01_boxes.txt": boxes.encode(),
        f"{folder}/val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\t9\t9\n",
    }
    images = ("train/n01/images/n01_0.JPEG", "train/n01/images/n01_9.JPEG", "val/images/val_0.JPEG")
    return lists | {f"{folder}/{name}": b"1" for name in images}


def test_get_downloads_unpacks_and_is_then_content(server, tmp_path, monkeypatch, wsolkit):
    server.content = make_zip(tmp_path / "source.zip", tiny_imagenet("tiny-imagenet-200")).read_bytes()
    (published,) = datasets.find("tiny_imagenet").archives
    served = server.archive(name=published.name, unpacks_to=published.unpacks_to)
    monkeypatch.setattr("wsolkit.datasets.published", lambda name: {"archives": [asdict(served)]})
    root = tmp_path / "data"
    code, out, _ = wsolkit("data", "check", "tiny_imagenet", "--data-root", root)
    assert (code, out.split()[0]) == (1, "missing")
    assert "wsolkit data get tiny_imagenet" in out
    code, out, _ = wsolkit("data", "get", "tiny_imagenet", "--data-root", root)
    assert code == 0
    assert f"{published.name} from http" in out
    assert out.count("ok ") == 3
    code, out, _ = wsolkit("data", "check", "tiny_imagenet", "--data-root", root)
    assert (code, out.count("1 of 1")) == (0, 3)
    assert wsolkit("data", "get", "tiny_imagenet", "--data-root", root)[0] == 0
    assert len(server.asked) == 1


def test_get_fetches_weights_to_where_they_are_looked_for(server, tmp_path, monkeypatch, wsolkit):
    monkeypatch.setenv("WSOLKIT_WEIGHTS", str(tmp_path / "weights"))
    digits = hashlib.sha256(CONTENT).hexdigest()[:8]
    published = SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/net-{digits}.pth")
    monkeypatch.setattr("wsolkit.localize.classifiers.imagenet_weights", {"net": published}.__getitem__)
    code, out, errors = wsolkit("data", "get", "weights", "--name", "net")
    path = tmp_path / "weights" / f"net-{digits}.pth"
    assert (code, out) == (0, f"{path} is there\n"), errors
    assert path.read_bytes() == CONTENT
    published.url = published.url.replace(digits, "0" * 8)
    code, _, errors = wsolkit("data", "get", "weights", "--name", "net")
    assert (code, visible(path.parent)) == (2, [path.name])
    assert "is not the published one" in errors
    for wrong in (["weights"], ["cub", "--name", "net"]):
        assert wsolkit("data", "get", *wrong)[0] == 2


def test_get_says_where_the_rest_comes_from(tmp_path, wsolkit):
    code, out, _ = wsolkit("data", "get", "ilsvrc", "--data-root", tmp_path)
    assert code == 1
    assert "after a login at https://image-net.org" in out
    code, out, _ = wsolkit("data", "get", "synthetic_birds", "--data-root", tmp_path)
    assert (code, out) == (0, "synthetic_birds needs no files.\n")
    assert wsolkit("data", "check", "nothing", "--data-root", tmp_path)[0] == 2


def test_an_unpacked_archive_is_not_fetched_again(server, tmp_path):
    (tmp_path / "top").mkdir()
    assert fetch(server.archive(), tmp_path) == tmp_path / "top"
    assert server.asked == []


def test_published_archives_have_a_checksum_and_unpack_where_their_reader_looks():
    for name in datasets.names():
        for archive in datasets.find(name).archives:
            algorithm, digits = archive.checksum.split(":")
            assert len(digits) == hashlib.new(algorithm).digest_size * 2
            assert archive.url.endswith(f"/{archive.name}")
            assert archive.bytes < _downloads.UNPACKED_LIMIT / 4
