"""Commands of a cluster's operator are run without the start of an interpreter each."""

from collections.abc import Iterator

import pytest

from sandwich_node.dev.cluster import DevCluster
from tests.support.commands import run_command


async def _run_cli(cluster: DevCluster, *arguments: str) -> tuple[int, str]:
    """See `DevCluster.run_cli`."""
    env = {**cluster.env, "SANDWICH_ETCD": cluster.etcd_urls}
    code, output, _ = await run_command(*arguments, env=env, directory=cluster.directory, merged=True)
    return code, output


@pytest.fixture(scope="session", autouse=True)
def fast_commands() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DevCluster, "run_cli", _run_cli)
        yield
