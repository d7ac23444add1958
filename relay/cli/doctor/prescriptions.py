"""What to do about a finding of `relay doctor`, where `remedies` has nothing for it. In braces stand values."""

from __future__ import annotations

from relay.observe.sentences import Words

PRESCRIPTIONS: dict[str, Words] = {
    # This machine
    "no-relay": Words(
        "Start it: `systemctl start relay`, or `relay serve -c FILE`.",
        "Start hem: `systemctl start relay`, of `relay serve -c BESTAND`.",
    ),
    "relay-silent": Words(
        "Run this as root or as the relay's own user, and see what `journalctl -u relay` says.",
        "Geef dit als root of als de gebruiker van de relay, en kijk wat `journalctl -u relay` zegt.",
    ),
    "troubles": Words("`relay status` tells them, and what to do.", "`relay status` noemt ze, en wat te doen."),
    "clock": Words(
        "Set the clock, and keep it right: `timedatectl set-ntp true`. Tokens and certificates need it.",
        "Zet de klok gelijk, en houd hem gelijk: `timedatectl set-ntp true`. Tokens en certificaten hebben dat nodig.",
    ),
    "disk": Words(
        "Make room on the disk of {folder}, or lower queue.min_free: below it new mail is refused.",
        "Maak ruimte op de schijf van {folder}, of verlaag queue.min_free: daaronder wordt nieuwe mail geweigerd.",
    ),
    "folder-missing": Words(
        "systemd makes it at the start; without systemd: `install -d -m 700 {folder}`.",
        "systemd maakt hem bij de start; zonder systemd: `install -d -m 700 {folder}`.",
    ),
    "folder": Words(
        "The folder must be writable for the user that the relay runs as; run this as that user, or as root.",
        "De map moet schrijfbaar zijn voor de gebruiker van de relay; geef dit als die gebruiker, of als root.",
    ),
    "slow-disk": Words(
        "Each mail waits for that once: put the queue on a faster disk, or see what keeps this one busy.",
        "Elke mail wacht daar een keer op: zet de wachtrij op een snellere schijf, of kijk wat deze bezighoudt.",
    ),
    "queue-unknown": Words(
        "Run this as root or as the relay's own user.", "Geef dit als root of als de gebruiker van de relay."
    ),
    "old-mail": Words(
        "`relay queue list` shows what waits and what the provider said about it.",
        "`relay queue list` toont wat er wacht en wat de provider erover zei.",
    ),
    "listener": Words(
        "See what `journalctl -u relay` says of that listener; `ss -ltnp` tells who listens where.",
        "Kijk wat `journalctl -u relay` over die listener zegt; `ss -ltnp` zegt wie waar luistert.",
    ),
    "port": Words(
        "Free the port, or choose another one under listeners.listen.",
        "Maak de poort vrij, of kies een andere bij listeners.listen.",
    ),
    # An upstream
    "check": Words("`relay check` tells more.", "`relay check` zegt meer."),
    "renewal": Words(
        "Its operator has to renew it before then.", "De beheerder ervan moet het voor die tijd vernieuwen."
    ),
    "unverified": Words(
        "Anybody on the way can read the password: take tls_verify: false out of upstreams.{name}.",
        "Iedereen onderweg kan het wachtwoord lezen: haal tls_verify: false weg bij upstreams.{name}.",
    ),
    "starttls-unused": Words(
        "Write tls: starttls for upstreams.{name}.", "Schrijf tls: starttls bij upstreams.{name}."
    ),
    "not-the-preset": Words(
        "Is that the right server? Compare `relay presets {preset}` with upstreams.{name}.",
        "Is dat de juiste server? Vergelijk `relay presets {preset}` met upstreams.{name}.",
    ),
    "size": Words(
        "Larger mail is refused there: lower max_message_size of upstreams.{name} and of the listeners.",
        "Grotere mail wordt daar geweigerd: verlaag max_message_size van upstreams.{name} en van de listeners.",
    ),
    "sender-later": Words(
        'Nothing: it said "later". If it says so again, ask the provider what the reply means.',
        'Niets: hij zei "later". Vraag de provider wat het antwoord betekent als hij dat weer zegt.',
    ),
    # A domain
    "dns-silent": Words(
        "Check that this machine can ask DNS, or name a server with --nameserver.",
        "Controleer of deze machine DNS kan vragen, of noem een server met --nameserver.",
    ),
    "spf-missing": Words(
        'Add a TXT record to {domain}: "v=spf1 {term} -all".',
        'Voeg aan {domain} een TXT-record toe: "v=spf1 {term} -all".',
    ),
    "spf-many": Words(
        "Receivers heed none of them: make one record of them.",
        "Ontvangers letten dan op geen ervan: maak er een record van.",
    ),
    "spf-lookups": Words(
        "Receivers give up after 10: take out what is not used any more.",
        "Ontvangers houden na 10 op: haal weg wat niet meer gebruikt wordt.",
    ),
    "spf-term": Words('Put {term} into the record, before its "all".', 'Zet {term} in het record, voor de "all".'),
    "dmarc-missing": Words(
        'Add a TXT record to _dmarc.{domain}: "v=DMARC1; p=none", and raise it once all mail is aligned.',
        'Voeg aan _dmarc.{domain} een TXT-record toe: "v=DMARC1; p=none", en verscherp dat als alle mail klopt.',
    ),
    "dkim-missing": Words(
        "Switch DKIM on for {domain} at the provider, and put the records that it names into DNS; if it signs with "
        "other selectors, name them in dkim_selectors.",
        "Zet DKIM voor {domain} aan bij de provider, en zet de records die hij noemt in DNS; tekent hij met andere "
        "selectors, noem die dan in dkim_selectors.",
    ),
    "not-aligned": Words(
        "Receivers that heed DMARC see a forged sender: have the provider sign with DKIM for {domain}, or mend SPF.",
        "Ontvangers die op DMARC letten zien een vervalste afzender: laat de provider met DKIM tekenen voor {domain}, "
        "of herstel SPF.",
    ),
}
