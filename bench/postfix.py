"""The fastest Postfix that does the same work: it rewrites the reverse-path and From to one address, and relays.

`sender_canonical_maps` rewrites, its connections are used again (over TLS by tlsproxy, which its ordinary connection
cache cannot), DNS is not asked, and nothing slows its intake down. It writes its log to a file, as the relay does.
It lies in a folder of its own and does not touch the Postfix of the machine, but needs root, and the user `postfix`.
"""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from bench.peer import ADDRESS, Lacking, Peer, Site
from bench.sink import PASSWORD, USER

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.example.com
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
relayhost = [127.0.0.1]:{upstream}
smtp_connection_cache_destinations = 127.0.0.1
default_destination_concurrency_limit = {connections}
initial_destination_concurrency = {initial}
default_process_limit = 200
in_flow_delay = 0
message_size_limit = 52428800
mailbox_size_limit = 0
smtp_dns_support_level = disabled
smtp_host_lookup = native
alias_maps =
alias_database =
local_recipient_maps =
biff = no
smtputf8_enable = no
sender_canonical_maps = regexp:{folder}/conf/canonical
sender_canonical_classes = envelope_sender, header_sender
local_header_rewrite_clients = permit_mynetworks
"""
WITHOUT_TLS = "smtp_tls_security_level = none\n"
WITH_TLS = """\
smtp_tls_security_level = encrypt
smtp_tls_CAfile = {ca}
smtp_tls_connection_reuse = yes
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ [127.0.0.1]:{upstream}={user}:{password} }}
smtp_sasl_security_options = noanonymous
smtp_sasl_mechanism_filter = plain
"""
MASTER = Path("/usr/share/postfix/master.cf.dist")
TLSPROXY = "tlsproxy unix - - n - 0 tlsproxy"  # Debian leaves it out; it keeps TLS connections open between messages


def lay_out(folder: Path, site: Site) -> Peer:
    """Raises Lacking."""
    if os.geteuid() != 0:
        raise Lacking("Postfix has to be started by root.")
    if not MASTER.exists() or shutil.which("postfix") is None:
        raise Lacking("Postfix is not installed (apt-get install postfix).")
    if site.ca is not None and not list(Path("/usr/lib").glob("*/sasl2/libplain.so")):
        raise Lacking("Postfix needs libsasl2-modules to log in (apt-get install libsasl2-modules).")
    for name in ("conf", "queue", "data"):
        (folder / name).mkdir(parents=True)
    os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
    (folder / "conf" / "canonical").write_text(f"/.+/ {ADDRESS}\n")
    (folder / "conf" / "master.cf").write_text(_master(site.port))
    (folder / "conf" / "main.cf").write_text(_main(folder, site))
    command = ("postfix", "-c", str(folder / "conf"))
    return Peer("postfix", site.port, (*command, "start-fg"), (*command, "stop"))


def _main(folder: Path, site: Site) -> str:
    way_out = WITHOUT_TLS if site.ca is None else WITH_TLS
    return (MAIN + way_out).format(
        folder=folder,
        upstream=site.upstream,
        connections=site.connections,
        initial=min(20, site.connections),
        ca=site.ca,
        user=USER,
        password=PASSWORD,
    )


def _master(port: int) -> str:
    """Debian's services and `tlsproxy`, none of them in a chroot, the SMTP server at `port`."""
    lines = [TLSPROXY]
    for line in MASTER.read_text().splitlines():
        words = line.split()
        if line.startswith("#"):
            continue
        if line[:1].isspace() or len(words) < 8:  # options of the service above
            lines.append(line)
            continue
        if words[:2] == ["smtp", "inet"]:
            words[0] = str(port)
        words[4] = "n"
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"
