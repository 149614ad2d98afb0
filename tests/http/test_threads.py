"""What HTTP does in threads: files on a disk wait for nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cancelling import until
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import HTTPClient, HTTPConfig


async def test_pipes_that_give_nothing_stop_no_file(tmp_path: Path) -> None:
    # More than the default executor has threads.
    pipes = [os.pipe() for _ in range(min(32, (os.cpu_count() or 1) + 4))]
    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(retries=0)) as client:
        uploads = []
        for end, _ in pipes:
            file = open(end, "rb", buffering=0)  # noqa: SIM115
            uploads.append((asyncio.create_task(client.post(peer.url, data=file)), file))
        await until(lambda: len(peer.connections) == len(pipes), "each upload has begun")
        await client.download(peer.url, tmp_path / "file")
        for _, end in pipes:
            os.close(end)
        for upload, file in uploads:
            await upload
            file.close()


def test_a_download_without_a_descriptor_left_says_so() -> None:
    """In a program that has run nothing in a thread before: what that takes is loaded by then."""
    pytest.importorskip("resource", reason="Windows has none")
    program = """
import asyncio, os, resource
from pepperpy.network import HTTPClient, InvalidRequestError

async def main():
    async with HTTPClient() as client:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            await client.download("http://127.0.0.1:1/", "file")
        except InvalidRequestError as error:
            print(error)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "cannot write 'file': Too many open files" in done.stdout, done.stderr
