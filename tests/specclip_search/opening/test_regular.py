"""Only regular files, and no gzip bomb."""

import gzip
import os
import socket
from pathlib import Path

import pytest

from specclip_search.errors import Reason, SpectrumError
from specclip_search.opening.regular import open_bytes, open_regular, shown_path


def test_what_is_no_regular_file_is_refused_at_once_and_named(tmp_path):
    pipe, folder, link = tmp_path / "p.fits", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path, said in ((pipe, "is a pipe"), (link, "is a pipe"), (folder, "is a folder"),
                           (tmp_path / "s", "is a socket"), (Path("/dev/zero"), "is a device"),
                           (tmp_path / "no", "does not exist"), ("a\0b", "cannot be read")):
            with pytest.raises(SpectrumError) as caught:
                open_regular(path)
            assert caught.value.reason == Reason.UNREADABLE
            assert said in caught.value.message
            assert caught.value.hint
    with pytest.raises(SpectrumError) as caught:
        open_regular(pipe)
    assert "write its content to a file" in caught.value.hint


def test_a_gzip_bomb_is_stopped_at_its_cap_and_an_honest_file_is_read(tmp_path):
    bomb, honest = tmp_path / "bomb.gz", tmp_path / "honest.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as stream:
        for _ in range(300):
            stream.write(bytes(1 << 20))
    with open_bytes(bomb) as stream, pytest.raises(SpectrumError, match="inflates to more than 128 MiB"):
        stream.read()
    text = os.urandom(100_000).hex().encode()
    honest.write_bytes(gzip.compress(text))
    with open_bytes(honest) as stream:
        assert stream.read() == text


def test_every_path_can_be_shown():
    assert shown_path(os.fsdecode(b"/a/\xb9\xe2/spec.fits")) == r"/a/\xb9\xe2/spec.fits"
    assert shown_path("/ä/x") == "/ä/x"
