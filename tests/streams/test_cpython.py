"""CPython's own tests of asyncio's streams pass over ours, as the running interpreter ships them.

Debian has them in the package libpython3.11-testsuite; pyenv's and python.org's interpreters have them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "cpython_streams.py"
# With the reason. A test that passes, or that is not there, has to leave this list.
NOT_APPLICABLE = {
    "test___repr__transport": "sets the private _transport",
    "test___repr__waiter": "sets the private _waiter",
    "test_exception_cancel": "looks at the private _waiter",
    "test_readline_limit": "looks at the private _buffer after the end of the stream",
    "test_streamreader_constructor_use_global_loop": "looks at the private _loop",
    "test_streamreader_constructor_use_running_loop": "looks at the private _loop",
}


@pytest.mark.slow
def test_cpythons_own_tests_pass_but_for_those_that_use_private_names() -> None:
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, str] = json.loads(done.stdout)
    if not outcomes:
        pytest.skip("this interpreter has no test.test_asyncio: Debian has it in libpython3.11-testsuite")
    assert len(outcomes) > 60
    failed = {name: text for name, text in outcomes.items() if text not in ("passed", "skipped")}
    unexpected = {name: text for name, text in failed.items() if name not in NOT_APPLICABLE}
    assert not unexpected, "\n".join(f"{name}:\n{text}" for name, text in unexpected.items())
    assert not NOT_APPLICABLE.keys() - failed.keys(), "these pass, or are not there"
