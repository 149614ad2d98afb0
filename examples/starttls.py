"""STARTTLS, in SMTP: `python examples/starttls.py HOST [PORT [CA_FILE]]` says what a mail server offers.

If the server does not offer STARTTLS, the program leaves: somebody on the way may have removed the offer. It also
leaves if bytes follow the "220 ready", because they would count as the first encrypted ones (CVE-2021-23222).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib

from pepperpy.network import NetworkClient, NetworkConfig, NetworkError, ProtocolError, TLSConfig


class SMTPError(Exception):
    """The server refused a command, or does not offer STARTTLS."""


async def receive_reply(client: NetworkClient) -> list[str]:
    """The lines of one reply: `250-SIZE 1000`, ..., `250 HELP`. The last one has a space behind the number."""
    lines: list[str] = []
    while not lines or lines[-1][3:4] == "-":
        line = await client.receive_until(b"\r\n")
        if not line[:3].isdigit():
            raise ProtocolError(f"not a reply of SMTP: {line[:40]!r}")
        lines.append(line.decode("ascii", "replace").rstrip())
    return lines


def checked(reply: list[str], code: str) -> list[str]:
    if not reply[-1].startswith(code):
        raise SMTPError(f"{code} expected: {' '.join(reply)}")
    return [line[4:] for line in reply]


async def ask(client: NetworkClient, command: str, code: str) -> list[str]:
    """Send one command, and return the texts of its reply. If the server has spoken unasked, `request()` raises."""
    return checked(await client.request(f"{command}\r\n".encode(), receive_reply), code)


async def start_tls(client: NetworkClient, tls: TLSConfig, name: str = "localhost") -> list[str]:
    """Go from the server's greeting to an encrypted session. Returns what it offers before that."""
    checked(await receive_reply(client), "220")
    _, *offers = await ask(client, f"EHLO {name}", "250")
    if "STARTTLS" not in offers:
        raise SMTPError(f"no STARTTLS, but: {', '.join(offers)}")
    await ask(client, "STARTTLS", "220")
    await client.start_tls(tls)
    return offers


async def main(host: str, port: int, ca_file: str | None) -> None:
    async with NetworkClient(NetworkConfig(host, port, timeout=30)) as client:
        print("in plain: ", ", ".join(await start_tls(client, TLSConfig(ca_file=ca_file))))
        tls = client.tls
        assert tls is not None
        print("TLS:      ", tls.version, tls.cipher, "SHA-256", hashlib.sha256(tls.peer_certificate).hexdigest())
        # What came in plain does not count, because anybody may have sent it (RFC 3207, section 4.2).
        print("encrypted:", ", ".join((await ask(client, "EHLO localhost", "250"))[1:]))
        await ask(client, "QUIT", "221")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog="It needs a mail server.")
    parser.add_argument("host")
    parser.add_argument("port", nargs="?", type=int, default=25)
    parser.add_argument("ca_file", nargs="?", help="authorities to trust instead of OpenSSL's")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(**vars(arguments)))
    except (NetworkError, SMTPError) as error:
        parser.exit(1, f"{error}\n")
