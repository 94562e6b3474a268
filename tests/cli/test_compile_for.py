import json

import jax
import pytest

from diffjax.errors import UserError

SMALL = ("base_channels=4", "channel_mults=(1,)", "num_res_blocks=1", "middle_blocks=False")


def test_a_dry_run_on_this_machine(command, tmp_path, capsys):
    out = tmp_path / "costs.json"
    command(
        "compile-for",
        "--config",
        "digits",
        "--topology",
        "local",
        "--num",
        16,
        "--out",
        out,
        "--config.train.batch_size=16",
        *(f"--config.model.{field}" for field in SMALL),
    )
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert found["devices"] == jax.device_count()
    assert found["train"]["collectives"]["all-reduce"]["count"] == 1
    assert found["sample"]["collectives"] == {}
    assert "exchanges: 1 all-reduce" in printed
    assert "least time" not in printed  # nothing is known of this chip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what", "train,nope"], "--what: 'nope' must be one of 'train', 'sample'"),
        (["--num", 5], "--num=5 must be a multiple of the 8 devices"),
        (["--config.train.batch_size=12"], "config.train.batch_size: 12 must be a positive multiple of the 8 devices"),
    ],
)
def test_wrong_options(command, arguments, words):
    with pytest.raises((UserError, SystemExit), match=words):
        command("compile-for", "--config", "digits", "--topology", "local", *arguments)
