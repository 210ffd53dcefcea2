from __future__ import annotations

import json

from tests.command_line import Cli


def test_both_cuts_and_the_rule(cli: Cli) -> None:
    done = cli("plan", "720x1280")
    assert (done.code, done.err) == (0, "")
    head, _, h, w = done.out.splitlines()
    assert head == "720x1280: 80 rows x 45 columns = 3600 image tokens, 16 pads on one device"
    assert " ".join(h.split()) == "h 40+40 1800+1800 1824 48 32 chosen: lower cost (48 pads against 112)"
    assert w.split() == ["w", "23+22", "1840+1760", "1856", "112", "96"]


def test_no_cut_is_explained(cli: Cli) -> None:
    done = cli("plan", "16x16", "--ulysses", 3)
    assert done.code == 0
    assert "1 rows of tokens over 3 ranks leave rank 1 empty" in done.out
    assert done.out.splitlines()[-1].startswith("neither axis is feasible: ")


def test_json_has_the_documented_keys(cli: Cli) -> None:
    done = cli("plan", "720x720", "--json")
    assert done.code == 0
    choice = json.loads(done.out)
    axes = choice.pop("axes")
    wanted = {"size": "720x720", "tokens_h": 45, "tokens_w": 45, "ulysses": 2, "single_pad_tokens": 23}
    assert choice.items() >= (wanted | {"chosen_axis": "h"}).items()
    assert set(axes) == {"h", "w"}
    cut = {"feasible": True, "reason": "", "shard_tokens": [23, 22], "local_tokens": [1035, 990]}
    pads = {"sequence_target": 1056, "pad_tokens": 87, "surplus_pad_tokens": 64}
    assert axes["h"].items() >= (cut | pads).items()


def test_json_of_a_cut_that_cannot_be(cli: Cli) -> None:
    choice = json.loads(cli("plan", "32x16", "--ulysses", 3, "--json").out)
    assert choice["chosen_axis"] is None
    assert not choice["axes"]["w"]["feasible"]
    assert "leave rank 2 empty" in choice["axes"]["w"]["reason"]
