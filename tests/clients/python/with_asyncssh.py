import asyncio
import os
import sys

import asyncssh

from ask import options


async def main(ask):
    more = {"rekey_bytes": ask.rekey} if ask.rekey else {}
    async with asyncssh.connect(
        "127.0.0.1", ask.port, username=ask.user, client_keys=[ask.key], known_hosts=ask.known_hosts,
        config=None, agent_path=None, **more,
    ) as client:
        terminal = {"term_type": os.environ["TERM"], "term_size": (80, 24)} if ask.pty else {}
        # Copies: asyncssh closes what it was given.
        copy = lambda number, mode: os.fdopen(os.dup(number), mode, buffering=0)
        streams = {} if ask.signal else {"stdin": copy(0, "rb"), "stdout": copy(1, "wb")}
        process = await client.create_process(
            ask.command, encoding=None, stderr=copy(2, "wb"), **streams, **terminal
        )
        if ask.signal:
            sys.stdout.buffer.write(await process.stdout.read(100))
            process.send_signal(ask.signal)
            sys.stdout.buffer.write(await process.stdout.read())
            sys.stdout.flush()
        await process.wait_closed()
        if process.exit_signal:
            print("client: signal", process.exit_signal[0], file=sys.stderr)
            return 255
        return 255 if process.exit_status is None else process.exit_status


sys.exit(asyncio.run(main(options())))
