"""A Postfix of our own in a folder that goes away: the next hop, as it is met in the world.

    with postfix(sink_port) as port:
        ...deliver to 127.0.0.1:port; what it took arrives at 127.0.0.1:sink_port...

It refuses the sender blocked@example.nl, the recipients unknown@… for good and grey@… for now, and a message whose
Subject begins with "spam". What it takes it hands on as it is, but for a Received field and its own line ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit.house import free_port

COMMAND = shutil.which("postfix", path=os.environ.get("PATH", "") + ":/usr/sbin")
MISSING = "needs Postfix, and root to run it" if COMMAND is None or os.geteuid() != 0 else ""
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
maillog_file_prefixes = {folder}, /dev/stdout
myhostname = postfix.example.com
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
smtpd_delay_reject = no
smtpd_sender_restrictions = check_sender_access inline:{{{{blocked@example.nl = 550 5.7.1 blocked}}}}
smtpd_recipient_restrictions = check_recipient_access regexp:{folder}/conf/recipients, permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
header_checks = regexp:{folder}/conf/header
local_header_rewrite_clients =
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtp_dns_support_level = disabled
smtp_host_lookup = native
alias_maps =
alias_database =
local_recipient_maps =
biff = no
in_flow_delay = 0
"""
_MASTER = """\
{port}    inet  n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
anvil     unix  - - n - 1 anvil
smtp      unix  - - n - - smtp
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
scache    unix  - - n - 1 scache
proxymap  unix  - - n - - proxymap
tlsmgr    unix  - - n 1000? 1 tlsmgr
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
showq     unix  n - n - - showq
postlog   unix-dgram n - n - 1 postlogd
"""


@contextmanager
def postfix(sink: int) -> Iterator[int]:
    """The port of a Postfix that hands on to the port `sink` of this machine."""
    assert COMMAND is not None
    # Not in pytest's folder: the user postfix has to get there.
    folder = Path(tempfile.mkdtemp(prefix="relay-postfix-"))
    folder.chmod(0o755)
    port = free_port()
    try:
        for name in ("conf", "queue", "data"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        (folder / "conf/main.cf").write_text(_MAIN.format(folder=folder, sink=sink))
        (folder / "conf/master.cf").write_text(_MASTER.format(port=port))
        (folder / "conf/recipients").write_text("/^unknown@/ 550 5.1.1 unknown\n/^grey@/ 450 4.7.1 greylisted\n")
        (folder / "conf/header").write_text("/^Subject: spam/ REJECT no spam here\n")
        command = [COMMAND, "-c", str(folder / "conf")]
        running = subprocess.Popen(
            [*command, "start-fg"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        try:
            assert running.stdout is not None
            said = []
            for line in running.stdout:
                said.append(line)
                if "daemon started" in line:
                    break
            else:
                raise AssertionError("".join(said))
            yield port
        finally:
            subprocess.run([*command, "stop"], capture_output=True, check=False)
            running.communicate(timeout=20)
    finally:
        shutil.rmtree(folder)
