"""The contracts' files, their schema, and a contract of one's own."""

import copy
import json
import re
import subprocess

import jsonschema
import pytest

from conftest import ROOT
from support import TWINFLASH, eventually

FILES = ROOT / "core/contracts"
SCHEMA = json.loads((FILES / "schema.json").read_text())
NAMES = ["configuration", "devkit", "iothub-dm", "node-direct-method", "python-firmware-status"]


def contract(name):
    return json.loads((FILES / f"{name}.json").read_text())


def validator():
    return jsonschema.Draft202012Validator(SCHEMA)


def refused(path):
    """What `twinflash update` says of a contract's file; nothing when it goes on to look at the rest."""
    service = "HostName=localhost:1;SharedAccessKeyName=owner;SharedAccessKey=AAAA"
    command = [TWINFLASH, "update", "--service", service, "--contract", path, "device", "https://localhost/x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stderr if "contract" in done.stderr else ""


def test_the_schema_holds_for_every_built_in_contract():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert sorted(path.stem for path in FILES.glob("*.json")) == sorted([*NAMES, "schema"])
    for name in NAMES:
        validator().validate(contract(name))
        assert contract(name)["contract"] == name
        assert refused(FILES / f"{name}.json") == ""


WRONG = [
    ("contract", "", "contract"),
    ("asked.methods", [], "asked"),
    ("asked.desired", "firmware", "asked"),
    ("asked.bareUri", "yes", "asked.bareUri"),
    ("asked.colour", 1, "asked.colour"),
    ("asked.members.uri", None, "asked.members.uri"),
    ("asked.needs", ["colour"], "asked.needs"),
    ("check", "maybe", "check"),
    ("checkForm", "crc", "checkForm"),
    ("version", "lower", "version"),
    ("refusals", ["busy"], "refusals"),
    ("answers", {}, "answers"),
    ("reasons", {"*": 1}, "reasons"),
    ("times", "seconds", "times"),
    ("reported.moments.waiting.iothubDM.firmwareUpdate.status", "{colour}", "firmwareUpdate.status"),
    ("reported.moments.waiting.iothubDM.firmwareUpdate.status", "{uri", "firmwareUpdate.status"),
    ("reported.moments.waiting.iothubDM.firmwareUpdate.status", ["waiting"], "firmwareUpdate.status"),
    ("reported.moments.sleeping", {}, "reported.moments"),
    ("reported.moments.idle", [1], "reported.moments.idle"),
    ("follow.failed", [], "follow.failed"),
    ("follow.colour", "x", "follow.colour"),
]


@pytest.mark.parametrize(("path", "value", "named"), WRONG)
def test_schema_and_program_refuse_the_same(tmp_path, path, value, named):
    wrong = contract("iothub-dm")
    *parents, name = path.split(".")
    place = wrong
    for parent in parents:
        place = place[parent]
    place[name] = value
    assert not validator().is_valid(wrong)
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(wrong))
    assert named in refused(file), refused(file)


def test_versions_and_checks_need_their_members(tmp_path):
    for name, member in [("configuration", "version"), ("configuration", "check"), ("devkit", "size")]:
        wrong = copy.deepcopy(contract(name))
        del wrong["asked"]["members"][member]
        assert not validator().is_valid(wrong)
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        assert f"asked.members.{member}" in refused(tmp_path / "wrong.json")


def test_a_contract_of_ones_own(place, tmp_path, hub):
    """That of docs/contracts.md: other words, fewer moments; the agent and the command both take the file."""
    page = (ROOT / "docs/contracts.md").read_text()
    [text] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    own = json.loads(text)
    validator().validate(own)
    file = tmp_path / "own.json"
    file.write_text(text)
    here = place(file)
    image = here.image("own.bin")
    assert eventually(lambda: here.twin().get("flash"), "the first report") == {"is": "idle", "runs": "1.0.0"}

    def update(check):
        here.mark()
        command = [
            TWINFLASH, "update", "--json", "--service", hub.service, "--ca", hub.ready["ca"], "--contract", file, "--check", check,
            here.device, here.firmware.url("own.bin"),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).returncode

    assert update("crc32:00000000") == 1
    assert here.twin()["flash"]["is"] == "bad"
    assert "crc32" in here.twin()["flash"]["why"]
    info = subprocess.run(
        [TWINFLASH, "image", "info", "--json", here.firmware.directory / "www/own.bin"], check=True, capture_output=True
    )
    assert update(json.loads(info.stdout)["sha256"]) == 0
    assert here.course("flash", "is") == ["accepted", "at work", "good"]
    assert "why" not in here.twin()["flash"]
    assert here.installed() == image
