"""Bytes of collectives, counted around torch.distributed in two real ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

PROGRAM = dedent("""
    import json, sys
    import torch
    import torch.distributed as dist
    from torch.distributed import all_gather, all_to_all_single, broadcast, isend, recv  # bound before the listening
    import torch.distributed._functional_collectives as functional
    from harness.worker import traffic

    rank, store = int(sys.argv[1]), dist.FileStore(sys.argv[2], 2)
    found = []
    traffic.listen(found.append)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    x, said = torch.ones(8), {}

    def counted(name, call):
        found.clear()
        call()
        said[name] = sum(found)

    counted("gather", lambda: all_gather([torch.empty(8), torch.empty(8)], x))
    counted("exchange", lambda: all_to_all_single(torch.empty(8), x))
    uneven = ([6, 2], [6, 2]) if rank == 0 else ([2, 6], [2, 6])
    counted("uneven", lambda: all_to_all_single(torch.empty(8), x, *uneven))
    counted("reduce", lambda: dist.all_reduce(x))
    counted("point to point", lambda: isend(x, 1).wait() if rank == 0 else recv(x, 0))
    counted("functional gather", lambda: functional.all_gather_tensor(x, 0, dist.group.WORLD).sum())
    counted("functional exchange", lambda: functional.all_to_all_single(x, None, None, dist.group.WORLD).sum())
    alone = dist.new_group([rank], use_local_synchronization=True)
    counted("alone", lambda: all_gather([torch.empty(8)], x, group=alone))
    print(json.dumps(said))
    dist.destroy_process_group()
""")


def test_what_reaches_other_ranks_is_counted_however_it_is_called(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    both = {
        "gather": 32,
        "exchange": 16,
        "uneven": 8,
        "reduce": 32,
        "functional gather": 32,
        "functional exchange": 16,
        "alone": 0,
    }
    assert said == [{**both, "point to point": 32}, {**both, "point to point": 0}]
