"""What to do about a trouble, in English and Dutch; `reading` says which remedy fits what an upstream said.

A remedy names keys of the configuration and commands as they are written. In braces stand values of the trouble.
"""

from __future__ import annotations

from collections.abc import Mapping

from relay.mail.outcome import Refusal
from relay.observe.sentences import Words

REMEDIES: dict[str, Words] = {
    # No way to the upstream
    "dns": Words(
        "Check host (or url) of upstreams.{name}, and that this machine can look up names (getent hosts NAME).",
        "Controleer host (of url) van upstreams.{name}, en of deze machine namen kan opzoeken (getent hosts NAAM).",
    ),
    "connection-refused": Words(
        "Nothing answers there: check host and port of upstreams.{name} "
        "(587 goes with tls: starttls, 465 with tls: implicit).",
        "Daar antwoordt niets: controleer host en port van upstreams.{name} "
        "(587 hoort bij tls: starttls, 465 bij tls: implicit).",
    ),
    "connection-timeout": Words(
        "Usually a firewall or the internet provider blocks the port: allow connections from this machine to that "
        "host and port, or use port 587 or 465 instead of 25.",
        "Meestal blokkeert een firewall of de internetprovider de poort: sta verbindingen van deze machine naar die "
        "host en poort toe, of gebruik poort 587 of 465 in plaats van 25.",
    ),
    "no-network": Words(
        "This machine has no way there: check its network connection, gateway and IPv6.",
        "Deze machine kan er niet komen: controleer netwerkverbinding, gateway en IPv6.",
    ),
    "port-and-tls": Words(
        "Often port and TLS do not fit together: 465 wants tls: implicit, 587 and 25 want tls: starttls; "
        "compare them in upstreams.{name}.",
        "Vaak passen poort en TLS niet bij elkaar: 465 wil tls: implicit, 587 en 25 willen tls: starttls; "
        "vergelijk ze in upstreams.{name}.",
    ),
    "no-starttls": Words(
        "Check host and port of upstreams.{name}: STARTTLS is there at port 587, 465 wants tls: implicit.",
        "Controleer host en port van upstreams.{name}: STARTTLS is er op poort 587, 465 wil tls: implicit.",
    ),
    "no-ehlo": Words(
        "The server does not know EHLO, or a firewall on the way changes it (SMTP inspection: exempt the relay), so "
        "that it offers neither TLS nor a login. Where neither is wanted it gets HELO: tls: none for upstreams.{name}, "
        "and no username.",
        "De server kent EHLO niet, of een firewall onderweg verandert het (SMTP-inspectie: zonder de relay daarvan "
        "uit), zodat hij geen TLS en geen aanmelding aanbiedt. Wie die niet wil, wordt met HELO begroet: tls: none bij "
        "upstreams.{name}, en geen username.",
    ),
    "turned-away": Words(
        "Ask the provider whether this machine's address may send there, and check hostname in the file.",
        "Vraag de provider of het adres van deze machine daar mag versturen, en controleer hostname in het bestand.",
    ),
    "quota": Words(
        "Nothing is lost: the mail waits and goes by itself. If it happens often, set rate or daily_recipients of "
        "upstreams.{name}, or ask the provider for more; after that, relay reload tries at once.",
        "Er gaat niets verloren: de mail wacht en gaat vanzelf weg. Gebeurt dit vaker, stel dan rate of "
        "daily_recipients van upstreams.{name} in, of vraag de provider om meer; relay reload probeert het dan direct.",
    ),
    "throttled": Words(
        "The provider asks for less: lower max_connections of upstreams.{name} if this lasts; "
        "the mail waits and goes by itself.",
        "De provider vraagt om minder: verlaag max_connections van upstreams.{name} als dit aanhoudt; "
        "de mail wacht en gaat vanzelf weg.",
    ),
    "upstream": Words(
        "The mail waits and goes by itself once the upstream works; if this lasts, ask the provider.",
        "De mail wacht en gaat vanzelf weg zodra de upstream werkt; vraag de provider als dit aanhoudt.",
    ),
    # TLS
    "certificate-expired": Words(
        "The upstream's operator has to renew it; check the clock of this machine as well (timedatectl).",
        "De beheerder van de upstream moet het vernieuwen; controleer ook de klok van deze machine (timedatectl).",
    ),
    "certificate-name": Words(
        "Set host (or url) of upstreams.{name} to a name that stands in the certificate.",
        "Zet in host (of url) van upstreams.{name} een naam die in het certificaat staat.",
    ),
    "certificate-authority": Words(
        "If the upstream is your own, name its CA with upstreams.{name}.tls_ca; if it is a provider's, a firewall or "
        "virus scanner may be opening TLS on the way: exempt the relay from that.",
        "Is de upstream van uzelf, geef dan zijn CA op met upstreams.{name}.tls_ca; is hij van een provider, dan opent "
        "misschien een firewall of virusscanner onderweg TLS: zonder de relay daarvan uit.",
    ),
    "certificate-pin": Words(
        "Ask the endpoint's operator, by another way, for the pin of the new key, and add it to "
        "upstreams.{name}.tls_pin; if they changed nothing, somebody else answers there.",
        "Vraag de beheerder van het eindpunt langs een andere weg om de pin van de nieuwe sleutel, en voeg die toe aan "
        "upstreams.{name}.tls_pin; hebben zij niets veranderd, dan antwoordt daar iemand anders.",
    ),
    "certificate-clock": Words(
        "Check the clock of this machine (timedatectl); if it is right, ask the upstream's operator.",
        "Controleer de klok van deze machine (timedatectl); vraag de beheerder van de upstream als die goed staat.",
    ),
    "tls-files": Words(
        "Check that the files in tls_ca, tls_certificate and tls_key of upstreams.{name} are there and readable for "
        "the relay, then run `relay reload`.",
        "Controleer of de bestanden in tls_ca, tls_certificate en tls_key van upstreams.{name} er zijn en leesbaar "
        "zijn voor de relay, en geef dan `relay reload`.",
    ),
    "tls": Words(
        "The upstream has to speak TLS 1.2 or later, with a cipher suite that is not too old: ask its operator. With "
        "tls_profile: legacy for upstreams.{name} it may speak what OpenSSL here still has of the older ones.",
        "De upstream moet TLS 1.2 of later spreken, met een cipher suite die niet te oud is: vraag de beheerder ervan. "
        "Met tls_profile: legacy bij upstreams.{name} mag het zijn wat OpenSSL hier nog van de oudere heeft.",
    ),
    "tls-ciphers": Words(
        "Most often there is no cipher suite in common, as an old server knows only those without forward secrecy, or "
        "keys that are too short: write tls_profile: legacy for upstreams.{name}, or ask its operator for newer ones.",
        "Meestal is er geen cipher suite die beide kennen: een oude server kent alleen die zonder forward secrecy, of "
        "te korte sleutels. Schrijf tls_profile: legacy bij upstreams.{name}, of vraag de beheerder om nieuwere.",
    ),
    # The login
    "password": Words(
        "Check username and password of upstreams.{name}, correct them where they are kept, and run `relay reload`: "
        "the mail waits and then goes by itself.",
        "Controleer username en password van upstreams.{name}, verbeter ze waar ze bewaard worden, en geef "
        "`relay reload`: de mail wacht en gaat dan vanzelf weg.",
    ),
    "endpoint-login": Words(
        "Check auth of upstreams.{name} and the secret it needs, correct it where it is kept, and run `relay reload`: "
        "the mail waits and then goes by itself. With hmac-sha256 check the clock of this machine too (timedatectl).",
        "Controleer auth van upstreams.{name} en het geheim dat daarbij hoort, verbeter het waar het bewaard wordt, en "
        "geef `relay reload`: de mail wacht en gaat dan vanzelf weg. Controleer bij hmac-sha256 ook de klok van deze "
        "machine (timedatectl).",
    ),
    "endpoint-moved": Words(
        "The endpoint is elsewhere now, and the relay does not go where an answer sends it: ask its operator for the "
        "new address, and write it in upstreams.{name}.url.",
        "Het eindpunt is nu ergens anders, en de relay gaat niet waar een antwoord hem heen stuurt: vraag de beheerder "
        "om het nieuwe adres, en schrijf dat in upstreams.{name}.url.",
    ),
    "google-password": Words(
        "Google wants an app password here, not the password of the account: turn on 2-step verification, make an app "
        "password, put it where upstreams.{name}.password points, and run `relay reload`.",
        "Google wil hier een app-wachtwoord, niet het wachtwoord van het account: zet verificatie in twee stappen aan, "
        "maak een app-wachtwoord, zet het waar upstreams.{name}.password naar wijst, en geef `relay reload`.",
    ),
    "m365-login": Words(
        "Check username (the full address of the mailbox) and password of upstreams.{name}, and that Authenticated "
        "SMTP is on for this mailbox (Microsoft 365 admin centre, Manage email apps); then run `relay reload`.",
        "Controleer username (het volledige adres van de mailbox) en password van upstreams.{name}, en of "
        "Geverifieerde SMTP aanstaat voor deze mailbox (Microsoft 365-beheercentrum, E-mail-apps beheren); "
        "geef dan `relay reload`.",
    ),
    "m365-tenant": Words(
        "SMTP AUTH is off for the whole organisation: turn on Authenticated SMTP for this mailbox, which goes before "
        "(Microsoft 365 admin centre, Manage email apps), then run `relay reload`.",
        "SMTP AUTH staat uit voor de hele organisatie: zet Geverifieerde SMTP aan voor deze mailbox, dat gaat voor "
        "(Microsoft 365-beheercentrum, E-mail-apps beheren), en geef dan `relay reload`.",
    ),
    "m365-security-defaults": Words(
        "The security defaults of Microsoft Entra forbid a login with a password: replace them by Conditional Access "
        "with an exception for this mailbox, or send through an SMTP relay connector.",
        "De beveiligingsstandaarden van Microsoft Entra verbieden aanmelden met een wachtwoord: vervang ze door "
        "voorwaardelijke toegang met een uitzondering voor deze mailbox, of verstuur via een SMTP-relayconnector.",
    ),
    "m365-criteria": Words(
        "Check the password; if it is right, a Conditional Access policy or MFA stands in the way (the sign-in logs of "
        "Microsoft Entra tell which), or Authenticated SMTP is off for this mailbox.",
        "Controleer het wachtwoord; klopt dat, dan zit een beleid voor voorwaardelijke toegang of MFA in de weg (de "
        "aanmeldingslogboeken van Microsoft Entra zeggen welk), of staat Geverifieerde SMTP uit voor deze mailbox.",
    ),
    "m365-no-passwords": Words(
        "Microsoft takes no passwords here any more: log in with OAuth2 (`relay auth setup m365` prints the steps), or "
        "send through an SMTP relay connector, which knows this machine by its address.",
        "Microsoft neemt hier geen wachtwoorden meer aan: meld aan met OAuth2 (`relay auth setup m365` toont de "
        "stappen), of verstuur via een SMTP-relayconnector, die deze machine aan haar adres herkent.",
    ),
    "m365-token": Words(
        "Microsoft gave a token, but the mailbox does not take it: the app needs SMTP.SendAsApp of Office 365 Exchange "
        "Online with admin consent, the service principal in Exchange must have the object ID of the enterprise "
        "application (not of the app registration) and rights on the mailbox, and Authenticated SMTP must be on for it "
        "(`relay auth setup m365`).",
        "Microsoft gaf een token, maar de mailbox neemt het niet aan: de app heeft SMTP.SendAsApp van Office 365 "
        "Exchange Online nodig met beheerderstoestemming, de service-principal in Exchange moet de object-id van de "
        "bedrijfstoepassing hebben (niet die van de app-registratie) en rechten op de mailbox, en Geverifieerde SMTP "
        "moet ervoor aanstaan (`relay auth setup m365`).",
    ),
    # Tokens
    "token-refused": Words(
        "Check that upstreams.{name}.username is the mailbox that the token is for, and that the token has the scope "
        "for mail; `relay auth test {name}` shows each step.",
        "Controleer of upstreams.{name}.username de mailbox is waar het token voor is, en of het token het bereik voor "
        "mail heeft; `relay auth test {name}` toont elke stap.",
    ),
    "token-secret-expired": Words(
        "The client secret has expired: make a new one in Microsoft Entra (App registrations, Certificates & secrets), "
        "put its value where upstreams.{name}.oauth2.client_secret points, write its end into secret_expires, and "
        "restart the relay.",
        "Het clientgeheim is verlopen: maak een nieuw in Microsoft Entra (App-registraties, Certificaten en geheimen), "
        "zet de waarde waar upstreams.{name}.oauth2.client_secret naar wijst, zet de einddatum in secret_expires, en "
        "herstart de relay.",
    ),
    "token-secret-wrong": Words(
        "The client secret is not accepted: upstreams.{name}.oauth2.client_secret must be its value, not its ID, and "
        "belong to that client_id.",
        "Het clientgeheim wordt niet geaccepteerd: upstreams.{name}.oauth2.client_secret moet de waarde zijn, niet de "
        "id, en bij die client_id horen.",
    ),
    "token-not-public": Words(
        "The app is a public client, and those have no secret: leave client_secret out of upstreams.{name}.oauth2, or "
        "set 'Allow public client flows' to No in the app registration.",
        "De app is een openbare client, en die hebben geen geheim: laat client_secret weg uit upstreams.{name}.oauth2, "
        "of zet 'Openbare clientstromen toestaan' op Nee in de app-registratie.",
    ),
    "token-public-client": Words(
        "For a login by device code the app registration must say 'Allow public client flows: Yes' (Authentication).",
        "Voor aanmelden met een apparaatcode moet in de app-registratie 'Openbare clientstromen toestaan: Ja' staan "
        "(Verificatie).",
    ),
    "token-app": Words(
        "There is no such app in that tenant: compare upstreams.{name}.oauth2.client_id and tenant with the app "
        "registration.",
        "Die app is er niet in die tenant: vergelijk upstreams.{name}.oauth2.client_id en tenant met de "
        "app-registratie.",
    ),
    "token-certificate": Words(
        "Microsoft does not know the certificate: upload the one that upstreams.{name}.oauth2.certificate names to the "
        "app registration.",
        "Microsoft kent het certificaat niet: upload het certificaat dat upstreams.{name}.oauth2.certificate noemt bij "
        "de app-registratie.",
    ),
    "token-clock": Words(
        "Check the clock of this machine (timedatectl): tokens need it to be right within a few minutes.",
        "Controleer de klok van deze machine (timedatectl): voor tokens moet die op enkele minuten na goed staan.",
    ),
    "token-redirect": Words(
        "The app registration has no redirect address: under Authentication, add the platform 'Mobile and desktop "
        "applications' with https://login.microsoftonline.com/common/oauth2/nativeclient.",
        "De app-registratie heeft geen omleidingsadres: voeg bij Verificatie het platform 'Mobiele en "
        "bureaubladtoepassingen' toe met https://login.microsoftonline.com/common/oauth2/nativeclient.",
    ),
    "token-tenant": Words(
        "Microsoft does not know which organisation is meant: upstreams.{name}.oauth2.tenant must be the directory "
        "(tenant) ID, or a domain of it.",
        "Microsoft weet niet welke organisatie bedoeld is: upstreams.{name}.oauth2.tenant moet de map-id (tenant-id) "
        "zijn, of een domein daarvan.",
    ),
    "token-consent": Words(
        "Nobody has consented to what the app asks for: grant admin consent under API permissions of the app.",
        "Niemand heeft toestemming gegeven voor wat de app vraagt: verleen beheerderstoestemming bij API-machtigingen "
        "van de app.",
    ),
    "token-scope": Words(
        "The scope is not one of this kind of login: leave scope out of upstreams.{name}.oauth2.",
        "Het bereik hoort niet bij deze manier van aanmelden: laat scope weg uit upstreams.{name}.oauth2.",
    ),
    "token-login": Words(
        "The login has ended, or there was none: log in with `relay auth login {name}`. If it ends again within days, "
        "a sign-in frequency of Conditional Access is at work: exempt the account, or use grant client_credentials.",
        "De aanmelding is verlopen, of er was er geen: meld aan met `relay auth login {name}`. Verloopt ze weer binnen "
        "dagen, dan werkt een aanmeldfrequentie van voorwaardelijke toegang: zonder het account uit, of gebruik grant "
        "client_credentials.",
    ),
    "token-delegation": Words(
        "The client may not do this: for a service account, allow its client ID the scope https://mail.google.com/ "
        "under domain-wide delegation in the Google Admin console.",
        "De client mag dit niet: sta voor een serviceaccount de client-id het bereik https://mail.google.com/ toe bij "
        "domeinbrede delegatie in de Google Beheerdersconsole.",
    ),
    "token-package": Words(
        "Install the package that it names into the relay's virtual environment, and restart the relay.",
        "Installeer het genoemde pakket in de virtuele omgeving van de relay, en herstart de relay.",
    ),
    "token-key": Words(
        "Give the relay the credential state-key that the kept login was encrypted with, or log in again with "
        "`relay auth login {name}`.",
        "Geef de relay de credential state-key waarmee de bewaarde aanmelding versleuteld is, of meld opnieuw aan met "
        "`relay auth login {name}`.",
    ),
    "token-endpoint": Words(
        "The mail waits, and a token is asked for again by itself; if this lasts, check that this machine reaches that "
        "host at port 443 (`relay auth test {name}`).",
        "De mail wacht, en er wordt vanzelf opnieuw om een token gevraagd; houdt dit aan, controleer dan of deze "
        "machine die host op poort 443 bereikt (`relay auth test {name}`).",
    ),
    "mechanism": Words(
        "The way of logging in is what does not fit, not the password: set upstreams.{name}.auth to one that it "
        "offers, and check its tls: many offer AUTH only inside TLS.",
        "De manier van aanmelden past niet, het ligt niet aan het wachtwoord: zet upstreams.{name}.auth op een die hij "
        "aanbiedt, en controleer tls: vaak is er alleen AUTH binnen TLS.",
    ),
    "secret": Words(
        "Check that what upstreams.{name}.password names (of an endpoint: token or secret) is there and readable for "
        "the relay, then run `relay reload`.",
        "Controleer of wat upstreams.{name}.password noemt (bij een eindpunt: token of secret) er is en leesbaar is "
        "voor de relay, en geef `relay reload`.",
    ),
    "login-later": Words(
        "The login of the upstream is out of order; it is tried again by itself. If this lasts, ask the provider.",
        "Het aanmelden bij de upstream hapert en wordt vanzelf opnieuw geprobeerd; vraag de provider als het aanhoudt.",
    ),
    "login-tls": Words(
        "It takes a login inside TLS only: write tls: starttls (port 587) or tls: implicit (port 465) for "
        "upstreams.{name}.",
        "Hij accepteert een aanmelding alleen binnen TLS: schrijf tls: starttls (poort 587) of tls: implicit (poort "
        "465) bij upstreams.{name}.",
    ),
    "login-locked": Words(
        "The provider has locked this login, for a while or until somebody asks: check username and password of "
        "upstreams.{name}, have the account unlocked there, and run `relay reload`.",
        "De provider heeft deze aanmelding geblokkeerd, voor even of tot iemand erom vraagt: controleer username en "
        "password van upstreams.{name}, laat het account daar vrijgeven, en geef `relay reload`.",
    ),
    "app-password": Words(
        "The provider wants a password made for programs (app password, authorization code) instead of that of the "
        "account: make one there, put it where upstreams.{name}.password points, and run `relay reload`.",
        "De provider wil een wachtwoord voor programma's (app-wachtwoord, autorisatiecode) in plaats van dat van het "
        "account: maak er daar een, zet het waar upstreams.{name}.password naar wijst, en geef `relay reload`.",
    ),
    "login-missing": Words(
        "It wants a login first: set username and password of upstreams.{name}.",
        "Hij wil eerst een aanmelding: zet username en password bij upstreams.{name}.",
    ),
    # The sender
    "sender": Words(
        "Have the provider allow the address, or add a rule to senders with an address that {name} accepts "
        "(`relay explain` shows what a rule does).",
        "Laat de provider het adres toestaan, of voeg aan senders een regel toe met een adres dat {name} accepteert "
        "(`relay explain` laat zien wat een regel doet).",
    ),
    "m365-send-as": Words(
        "Give the account Send As on that address in Microsoft 365, or add a rule to senders with an address that the "
        "account may use.",
        "Geef het account in Microsoft 365 Verzenden als op dat adres, of voeg aan senders een regel toe met een adres "
        "dat het account mag gebruiken.",
    ),
    "m365-blocked": Words(
        "Microsoft blocked the account for sending spam: find out why, and unblock it in Microsoft Defender "
        "(Restricted entities).",
        "Microsoft heeft het account geblokkeerd wegens spam: zoek uit waarom, en deblokkeer het in Microsoft Defender "
        "(Beperkte entiteiten).",
    ),
    # The house
    "store-full": Words(
        "Make room on the disk of the queue; the relay goes on by itself.",
        "Maak ruimte op de schijf van de wachtrij; de relay gaat vanzelf verder.",
    ),
    "store-busy": Words(
        "Another program holds the database: end it (a backup, an sqlite3 shell; `fuser FILE` names it). "
        "The relay goes on by itself.",
        "Een ander programma houdt de database vast: beëindig het (een back-up, een sqlite3-shell; `fuser BESTAND` "
        "noemt het). De relay gaat vanzelf verder.",
    ),
    "store-corrupt": Words(
        "Stop the relay, keep a copy of the database with its -wal and .spool beside it, check the disk, and put back "
        "a backup (`relay queue backup` makes them).",
        "Stop de relay, bewaar een kopie van de database met -wal en .spool ernaast, controleer de schijf, en zet een "
        "back-up terug (`relay queue backup` maakt ze).",
    ),
    "store-moved": Words(
        "Do not stop the relay: what waits would be lost. Put back what was moved, and it goes on by itself. Else "
        "`relay queue backup FILE` saves what waits: then stop the relay, put that backup in its place, and start.",
        "Stop de relay niet: wat wacht zou verloren gaan. Zet terug wat is verplaatst, dan gaat hij vanzelf verder. "
        "Anders bewaart `relay queue backup BESTAND` wat wacht: stop daarna de relay, zet die back-up op zijn plaats, "
        "en start.",
    ),
    "store": Words(
        "Check the disk and the rights of the queue's folder (dmesg, ls -l); the relay goes on by itself.",
        "Controleer de schijf en de rechten van de map van de wachtrij (dmesg, ls -l); de relay gaat vanzelf verder.",
    ),
    "disk": Words(
        "Make room on the disk of the queue, or find out what fills it (df -h).",
        "Maak ruimte op de schijf van de wachtrij, of zoek uit wat hem vult (df -h).",
    ),
    "listener-certificate": Words(
        "Renew the files that the listener {name} names, then run `relay reload`.",
        "Vernieuw de bestanden die listener {name} noemt, en geef dan `relay reload`.",
    ),
    "upstream-certificate": Words(
        "Its operator has to renew it; once it has ended, the relay will not send there.",
        "De beheerder ervan moet het vernieuwen; is het verlopen, dan verstuurt de relay daar niet meer heen.",
    ),
    "secret-end": Words(
        "Make a new client secret at the provider, put its value where upstreams.{name}.oauth2.client_secret points, "
        "write its end into secret_expires, and restart the relay; both secrets work side by side until then.",
        "Maak een nieuw clientgeheim bij de provider, zet de waarde waar upstreams.{name}.oauth2.client_secret naar "
        "wijst, zet de einddatum in secret_expires, en herstart de relay; tot dan werken beide naast elkaar.",
    ),
    "login-certificate-end": Words(
        "Make a new certificate, register it at the provider, put it where upstreams.{name} names it, and run "
        "`relay reload`.",
        "Maak een nieuw certificaat, registreer het bij de provider, zet het waar upstreams.{name} het noemt, en geef "
        "`relay reload`.",
    ),
    "codes-expired": Words(
        "Look which way was down (`relay status`, and `upstream_set_aside` in the log); session_codes.fallback lets "
        "the other way take over.",
        "Kijk welke weg niet werkte (`relay status`, en `upstream_set_aside` in het log); met session_codes.fallback "
        "neemt de andere weg het over.",
    ),
    "codes-waiting": Words(
        "Look what the upstreams of the session codes say (`relay status`); who waits should ask for a new code when "
        "they work again.",
        "Kijk wat de upstreams van de sessiecodes zeggen (`relay status`); wie wacht kan een nieuwe code vragen zodra "
        "ze weer werken.",
    ),
    "reload": Words(
        "Correct the file until `relay check` finds nothing, then run `relay reload`.",
        "Verbeter het bestand tot `relay check` niets meer vindt, en geef dan `relay reload`.",
    ),
    "alarm-failed": Words(
        "Correct alarms.{name} and run `relay reload`; `relay test --alarm` tries every way.",
        "Verbeter alarms.{name} en geef `relay reload`; `relay test --alarm` probeert elke weg.",
    ),
    "test": Words("Nothing.", "Niets."),
    "damaged": Words(
        "`relay queue list --state damaged` names them; make a copy of the queue before you touch it, check the disk, "
        "and ask the senders to send again.",
        "`relay queue list --state damaged` noemt ze; maak eerst een kopie van de wachtrij, controleer de schijf, "
        "en vraag de afzenders opnieuw te versturen.",
    ),
    "in-doubt": Words(
        "`relay queue list --state held` shows them: ask a recipient whether it arrived. `relay queue cancel ID` ends "
        "it if it did, `relay queue release ID` sends it again if not, `relay queue bounce ID` tells the sender.",
        "`relay queue list --state held` toont ze: vraag een ontvanger of het is aangekomen. `relay queue cancel ID` "
        "beëindigt het als dat zo is, `relay queue release ID` verstuurt het opnieuw zo niet, `relay queue bounce ID` "
        "meldt het aan de afzender.",
    ),
    "held": Words(
        "`relay queue list --state held` shows them, `relay queue release ID` lets one go, `relay queue cancel ID` "
        "ends it.",
        "`relay queue list --state held` toont ze, `relay queue release ID` laat er een gaan, `relay queue cancel ID` "
        "beëindigt het.",
    ),
    "pickup-refused": Words(
        "Look into bad/ in that folder: NAME.reason.txt or the log says why; correct a file and move it back, or "
        "remove it. A folder with .eml in its name, and bad-… or .taken-… beside bad/, do not belong there.",
        "Kijk in bad/ in die map: NAAM.reason.txt of het log zegt waarom; verbeter een bestand en zet het terug, of "
        "verwijder het. Een map met .eml in de naam, en bad-… of .taken-… naast bad/, horen daar niet.",
    ),
    "pickup-failed": Words(
        "The relay's user must be able to read the folder and to write in it; see whether the disk is full or failing. "
        "It goes on by itself.",
        "De gebruiker van de relay moet de map kunnen lezen en erin kunnen schrijven; kijk of de schijf vol of kapot "
        "is. Het gaat vanzelf verder.",
    ),
    "old": Words(
        "`relay queue list --route {name}` shows the last reply about each of them.",
        "`relay queue list --route {name}` toont het laatste antwoord over elk ervan.",
    ),
    "report": Words(
        "Mail goes on. Please report it, with the lines of the log that say `exception`.",
        "De mail gaat door. Meld het alstublieft, met de regels van het log waarin `exception` staat.",
    ),
}

OF_REFUSALS: Mapping[Refusal, Words] = {
    Refusal.SENDER: REMEDIES["sender"],
    Refusal.THROTTLED: REMEDIES["throttled"],
    Refusal.QUOTA: Words(
        "The account has sent all it may for now: the mail waits, and goes by itself when the provider's count begins "
        "anew; spread it over more accounts if this lasts.",
        "Het account heeft verstuurd wat het nu mag: de mail wacht, en gaat vanzelf weg als de telling van de provider "
        "opnieuw begint; verdeel de mail over meer accounts als dit aanhoudt.",
    ),
    Refusal.AUTH: Words(
        "Mend the login of upstreams.{name} (username, password), or have the provider allow it; the mail waits.",
        "Herstel de aanmelding van upstreams.{name} (username, password), of laat de provider die toestaan; de mail "
        "wacht.",
    ),
    Refusal.TOO_MANY: Words(
        "Nothing: the others go at once, as many at a time as the provider takes; `relay status` says how many. With "
        "that number as max_recipients of upstreams.{name} it need not be found out every day.",
        "Niets: de anderen gaan meteen, zoveel tegelijk als de provider aanneemt; `relay status` zegt hoeveel. Met dat "
        "getal als max_recipients bij upstreams.{name} hoeft het niet elke dag gevonden te worden.",
    ),
    Refusal.RECIPIENT: Words(
        "Check the address of the recipient with whoever sent it.",
        "Controleer het adres van de ontvanger bij de afzender.",
    ),
    Refusal.CONTENT: Words(
        "The provider does not want what is in it: look for attachments and links it may take for spam or a virus, "
        "and ask the provider.",
        "De provider wil de inhoud niet: kijk naar bijlagen en links die voor spam of een virus aangezien kunnen "
        "worden, en vraag het de provider.",
    ),
    Refusal.TOO_LARGE: Words(
        "Have it sent in parts or as a link, or ask the provider for a higher limit.",
        "Laat het in delen of als link versturen, of vraag de provider om een hogere grens.",
    ),
    Refusal.LINE_TOO_LONG: Words(
        "The message has lines that the provider does not take: write long_lines: encode for upstreams.{name}.",
        "Het bericht heeft regels die de provider niet aanneemt: schrijf long_lines: encode bij upstreams.{name}.",
    ),
    Refusal.MAILBOX_FULL: Words(
        "The mailbox is full: its owner has to make room. If it is the account's own, empty Sent Items.",
        "De mailbox is vol: de eigenaar moet ruimte maken. Is het die van het account zelf, leeg dan Verzonden items.",
    ),
    Refusal.TEMPORARY: Words(
        "Nothing: it is tried again by itself. If it lasts, ask the provider what the reply means.",
        "Niets: het wordt vanzelf opnieuw geprobeerd. Houdt het aan, vraag de provider wat het antwoord betekent.",
    ),
    Refusal.PERMANENT: Words(
        "Ask the provider what the reply means, and show it this line.",
        "Vraag de provider wat het antwoord betekent, en laat deze regel zien.",
    ),
}
"""What the operator can do about a reply, by what it speaks of."""
