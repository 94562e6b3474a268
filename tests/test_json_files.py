import json

import pytest

from diffjax import json_files
from diffjax.errors import UserError


def test_a_record_comes_back(tmp_path):
    path = json_files.write_record(tmp_path / "a.json", {"η": 0.1, "shape": (8, 8), "nested": {3: None}})
    assert json_files.read_record(path, "") == {"η": 0.1, "shape": [8, 8], "nested": {"3": None}}
    assert list(json.loads(path.read_text()))[-1] == "checksum"


def test_the_order_of_names_and_spaces_do_not_matter(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(json_files.with_checksum({"a": 1, "b": [2.5]}), indent=None))
    assert json_files.read_record(path, "") == {"a": 1, "b": [2.5]}
    assert json_files.checksum({"a": 1, "b": 2}) == json_files.checksum({"b": 2, "a": 1})


@pytest.mark.parametrize(("before", "after"), [('"a": 1', '"a": 2'), ("checksum", "checksun"), ('"a"', '"b"')])
def test_a_changed_record_is_refused(before, after, tmp_path):
    path = json_files.write_record(tmp_path / "a.json", {"a": 1})
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(UserError, match=r"^cannot read .*a.json: it is not as it was written .* its line 'checksum'"):
        json_files.read_record(path, "")


def test_a_record_without_a_checksum_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert json_files.read_record(tmp_path / "a.json", "") == {"a": 1}
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match="it holds an empty object"):
        json_files.read_record(tmp_path / "a.json", "")
