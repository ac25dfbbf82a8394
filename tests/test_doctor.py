import pytest

from wsolkit.cli import doctor
from wsolkit.errors import WsolkitError
from wsolkit.reproduce import runner


@pytest.fixture
def findings():
    return {finding.what: finding for finding in doctor.examine()}


def test_a_sound_machine_has_nothing_wrong(findings):
    wrong = [finding for finding in findings.values() if finding.state == "wrong"]
    assert not wrong
    assert "torch" in findings["packages"].found
    assert findings["runs"].found == "0 done, 0 begun, 0 foreign"


def test_looking_changes_nothing(findings, tmp_path):
    assert list(tmp_path.iterdir()) == []


def test_every_trouble_says_what_to_do(findings, monkeypatch, tmp_path):
    def no_kernel() -> None:
        raise WsolkitError("No Jupyter kernel. Register it with: ...")

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WSOLKIT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(runner, "check_kernel", no_kernel)
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=1000", "surely_not_there>=1"])
    monkeypatch.setattr(doctor, "ROOM", float("inf"))
    found = {finding.what: finding for finding in doctor.examine()}
    assert found["kernel"].state == "wrong"
    assert "Register it with" in found["kernel"].found
    assert found["cache"].remedy == "set WSOLKIT_CACHE to a folder that can"
    assert found["packages"].state == "wrong"
    assert "numpy>=1000" in found["packages"].found
    assert "surely_not_there>=1 (here: none)" in found["packages"].found
    assert "make room" in found["run store"].remedy


def test_data_are_examined_where_they_are_named(tmp_path):
    found = {finding.what: finding for finding in doctor.examine(tmp_path)}
    assert found["cub"].state == "note"
    assert found["cub"].remedy == f"wsolkit data check cub --data-root {tmp_path}"
    assert "synthetic_birds" not in found


def test_the_shell_tells_by_its_exit_code(wsolkit, monkeypatch):
    code, out, _ = wsolkit("doctor")
    assert code == 0
    assert "run store" in out
    monkeypatch.setattr(doctor, "ROOM", float("inf"))
    assert wsolkit("doctor")[0] == 1
