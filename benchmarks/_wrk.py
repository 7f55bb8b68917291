"""The cheapest load there is: `wrk`, a generator in C, which leaves most of the cores to the servers."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
local bodies, ready, n = {%s}, {}, 0
function init(args) for i, body in ipairs(bodies) do ready[i] = wrk.format(nil, nil, nil, body) end end
function request() n = n %% #ready + 1; return ready[n] end
function done(summary, latency, requests)
    local e = summary.errors
    print(("DONE %%d %%d"):format(summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Blast(NamedTuple):
    """What came of a load."""

    requests: int
    seconds: float
    cpu: float  # seconds that the generator used


def find() -> str:
    """Path of the program (raises RuntimeError when it is not installed)."""
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is not installed: `apt install wrk`, or put one on the PATH")
    return program


def blast(url: str, bodies: Sequence[bytes], token: str, seconds: int, connections: int = 32) -> Blast:
    """Post bodies in turns for so many seconds.

    Raises
    ------
    RuntimeError
        When `wrk` is not installed, or a request failed.
    """
    program = find()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        script.write_text(_SCRIPT % (token, ", ".join(f"[==[{body.decode()}]==]" for body in bodies)))
        command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
        before, started = os.times(), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        elapsed, after = time.perf_counter() - started, os.times()
    found = re.search(r"DONE (\d+) (\d+)", done.stdout)
    if found is None or int(found[2]) or not int(found[1]):
        raise RuntimeError(f"wrk on {url}: wanted answers without an error, found: {done.stdout}{done.stderr}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Blast(int(found[1]), elapsed, used)
