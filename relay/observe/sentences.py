"""What is wrong, in English and Dutch: a title and a sentence for each kind of trouble.

The kind is the first word of a trouble's cause, or finer than that. In braces stand values of the trouble.
"""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """The same in both languages of the relay; the fields are the values of `language`."""

    en: str
    nl: str


TITLES: dict[str, Words] = {
    "upstream-aside": Words("Upstream {name} does not work", "Upstream {name} werkt niet"),
    "auth-refused": Words("Login refused by {name}", "Aanmelding geweigerd door {name}"),
    "certificate-bad": Words("Certificate of {name} not accepted", "Certificaat van {name} niet vertrouwd"),
    "quota": Words("Quota of {name} used up", "Quotum van {name} is op"),
    "throttled": Words("{name} asks for less", "{name} vraagt om minder"),
    "store-failed": Words("The queue cannot be written", "De wachtrij kan niet worden opgeslagen"),
    "store-moved": Words("A file of the queue was taken away", "Een bestand van de wachtrij is weggehaald"),
    "disk-low": Words("Disk nearly full", "Schijf bijna vol"),
    "disk-full": Words("Disk full: new mail is refused", "Schijf vol: nieuwe mail wordt geweigerd"),
    "certificate-ends": Words("Certificate of {name} ends soon", "Certificaat van {name} verloopt binnenkort"),
    "certificate-ended": Words("Certificate of {name} has expired", "Certificaat van {name} is verlopen"),
    "secret-ends": Words("Client secret of {name} ends soon", "Clientgeheim van {name} verloopt binnenkort"),
    "secret-ended": Words("Client secret of {name} has expired", "Clientgeheim van {name} is verlopen"),
    "login-certificate-ends": Words(
        "Client certificate for {name} ends soon", "Clientcertificaat voor {name} verloopt binnenkort"
    ),
    "login-certificate-ended": Words(
        "Client certificate for {name} has expired", "Clientcertificaat voor {name} is verlopen"
    ),
    "token-refused": Words("No new token for {name}", "Geen nieuw token voor {name}"),
    "session-codes-expired": Words("Session codes expired", "Sessiecodes verlopen"),
    "session-codes-waiting": Words("Session codes are stuck", "Sessiecodes blijven hangen"),
    "reload-refused": Words("Configuration refused", "Configuratie geweigerd"),
    "entries-damaged": Words("Damaged mail in the queue", "Beschadigde mail in de wachtrij"),
    "entries-in-doubt": Words("Mail in doubt is held", "Misschien al bezorgde mail wordt vastgehouden"),
    "entries-held": Words("Mail is held", "Mail wordt vastgehouden"),
    "pickup-refused": Words("Files of {name} not taken", "Bestanden van {name} niet aangenomen"),
    "pickup-failed": Words("The folder of {name} does not work", "De map van {name} werkt niet"),
    "queue-old": Words("Mail waits for long", "Mail wacht al lang"),
    "sender-refused": Words("Sender refused by {name}", "Afzender geweigerd door {name}"),
    "exceptions": Words("Fault in the relay", "Fout in de relay"),
    "alarm-failed": Words("Alarms do not leave by {name}", "Alarmen gaan niet weg via {name}"),
    "test": Words("Test of the alarms", "Test van de alarmen"),
}

SENTENCES: dict[str, Words] = {
    "upstream-aside": Words(
        "The upstream {name} is not used for now: {said}.",
        "Upstream {name} wordt nu niet gebruikt: {said}.",
    ),
    "auth-refused": Words(
        "The upstream {name} refused the login: {said}.",
        "Upstream {name} weigerde de aanmelding: {said}.",
    ),
    "quota": Words(
        "The upstream {name} says that its quota is used up, and is left alone until {until}: {said}.",
        "Het quotum van upstream {name} is op; er gaat niets heen tot {until}: {said}.",
    ),
    "throttled": Words(
        "The upstream {name} keeps asking for less: {said}.",
        "Upstream {name} blijft om minder vragen: {said}.",
    ),
    "certificate-bad": Words(
        "The certificate of the upstream {name} is not accepted: {said}.",
        "Het certificaat van upstream {name} wordt niet vertrouwd: {said}.",
    ),
    "store-failed": Words(
        "The queue cannot be written, and new mail is put off: {said}.",
        "De wachtrij kan niet worden opgeslagen en nieuwe mail wordt uitgesteld: {said}.",
    ),
    "store-moved": Words(
        "The queue is no longer where the next start would look for it, and new mail is put off: {said}.",
        "De wachtrij staat niet meer waar een volgende start haar zoekt en nieuwe mail wordt uitgesteld: {said}.",
    ),
    "disk-low": Words(
        "The disk of the queue has {free} left; below {least} new mail is refused.",
        "Op de schijf van de wachtrij is nog {free} vrij; onder {least} wordt nieuwe mail geweigerd.",
    ),
    "disk-full": Words(
        "The disk of the queue has only {free} left, less than {least}: new mail is refused.",
        "Op de schijf van de wachtrij is nog maar {free} vrij, minder dan {least}: nieuwe mail wordt geweigerd.",
    ),
    "certificate-ends": Words(
        "The certificate of the {what} {name} ends on {day}.",
        "Het certificaat van {what} {name} verloopt op {day}.",
    ),
    "certificate-ended": Words(
        "The certificate of the {what} {name} ended on {day}.",
        "Het certificaat van {what} {name} is verlopen op {day}.",
    ),
    "secret-ends": Words(
        "The client secret that the upstream {name} is logged in with ends on {day}; then no mail leaves by it.",
        "Het clientgeheim waarmee bij upstream {name} wordt aangemeld verloopt op {day}; daarna gaat er geen mail meer "
        "langs.",
    ),
    "secret-ended": Words(
        "The client secret that the upstream {name} is logged in with ended on {day}.",
        "Het clientgeheim waarmee bij upstream {name} wordt aangemeld is verlopen op {day}.",
    ),
    "login-certificate-ends": Words(
        "The certificate that the relay shows for the upstream {name} ends on {day}; then no mail leaves by it.",
        "Het certificaat dat de relay toont voor upstream {name} verloopt op {day}; daarna gaat er geen mail meer "
        "langs.",
    ),
    "login-certificate-ended": Words(
        "The certificate that the relay shows for the upstream {name} ended on {day}.",
        "Het certificaat dat de relay toont voor upstream {name} is verlopen op {day}.",
    ),
    "token-refused": Words(
        "The upstream {name} still works, but no new token is to be had for it: {said}.",
        "Upstream {name} werkt nog, maar er is geen nieuw token voor te krijgen: {said}.",
    ),
    "session-codes-expired": Words(
        "Session codes that expired before they could be delivered, in the last hour: {count}.",
        "Sessiecodes die in het afgelopen uur verliepen voordat ze bezorgd konden worden: {count}.",
    ),
    "session-codes-waiting": Words(
        "A session code has been waiting for {age}.",
        "Een sessiecode wacht al {age}.",
    ),
    "reload-refused": Words(
        "The changed configuration was refused and the earlier one stays in use: {said}.",
        "De gewijzigde configuratie is geweigerd en de vorige blijft in gebruik: {said}.",
    ),
    "entries-damaged": Words(
        "Messages in the queue that cannot be read any more: {count}.",
        "Berichten in de wachtrij die niet meer gelezen kunnen worden: {count}.",
    ),
    "entries-in-doubt": Words(
        "Messages that may have been delivered, because no answer came after their end, and wait for somebody to "
        "decide: {count}.",
        "Berichten die misschien bezorgd zijn, omdat er na het einde ervan geen antwoord kwam, en wachten tot iemand "
        "beslist: {count}.",
    ),
    "entries-held": Words(
        "Messages that wait for somebody to release them: {count}.",
        "Berichten die wachten tot iemand ze vrijgeeft: {count}.",
    ),
    "pickup-refused": Words(
        "What the listener {name} could not take from its folder, and nobody got: {count}.",
        "Wat listener {name} niet uit zijn map kon aannemen, en niemand kreeg: {count}.",
    ),
    "pickup-failed": Words(
        "Files cannot be taken from the folder of a listener: {said}.",
        "Uit de map van een listener kunnen geen bestanden aangenomen worden: {said}.",
    ),
    "queue-old": Words(
        "The oldest mail of the route {name} has been waiting for {age}.",
        "De oudste mail van route {name} wacht al {age}.",
    ),
    "sender-refused": Words(
        "The upstream {name} refused the sender of a message: {said}.",
        "Upstream {name} weigerde de afzender van een bericht: {said}.",
    ),
    "alarm-failed": Words(
        "An alarm could not be sent by alarms.{name}: {said}.",
        "Een alarm kon niet worden verstuurd via alarms.{name}: {said}.",
    ),
    "test": Words(
        "Nothing: this is a test of the alarms.",
        "Niets: dit is een test van de alarmen.",
    ),
    "exceptions": Words(
        "The relay caught faults of its own in the last 24 hours: {count}, the last one in {where}.",
        "De relay ving in de afgelopen 24 uur eigen fouten op: {count}, de laatste in {where}.",
    ),
}
