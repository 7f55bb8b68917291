"""Passes connections on to another port, in a process of its own: killed, it cuts all of them at once."""

import asyncio
import contextlib
import subprocess
import sys


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while content := await reader.read(65_536):
            writer.write(content)
            await writer.drain()
    writer.close()


async def _serve(port: int, target: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port, reuse_address=True)
    await server.serve_forever()


class TcpProxy:
    """A running proxy.

    Parameters
    ----------
    port, target
        Ports of the loopback: where it listens, and where it passes connections on to.
    """

    def __init__(self, port: int, target: int) -> None:
        self._command = [sys.executable, "-m", "ml_platform_tests.tcp_proxy", str(port), str(target)]
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """Cut all connections, and let none through until `start`."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Let connections through again."""
        self._process = subprocess.Popen(self._command)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
