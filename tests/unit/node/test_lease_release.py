"""What a worker does about the lease of its agent that died."""

from pathlib import Path

import pytest

from sandwich_node.agent.lease_release import release_lease
from sandwich_node.ipc import EtcdOptions


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_certificate_that_cannot_be_used_ends_no_worker(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_bytes(content)
    await release_lease(EtcdOptions(endpoints=("https://127.0.0.1:1",), ca_file=str(file)), 7)
    assert "could not be released and will run out" in caplog.text
    assert str(file) in caplog.text
