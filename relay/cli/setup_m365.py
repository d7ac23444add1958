"""What `relay auth setup m365` prints: the steps from nothing to a login with OAuth2, and a script that does them."""

from __future__ import annotations

from relay.config.values import BadValue, address
from relay.errors import RelayError

_GUIDE = """\
# Microsoft 365 with OAuth2: an app that may send as {mailbox}, and as nobody else.
#
# Save this as setup.ps1 and run it once in PowerShell 7, on any machine, as an administrator of the tenant
# (Global Administrator, or Application and Exchange Administrator). What it does:
#
#   1. registers an app in Microsoft Entra and gives it one permission: SMTP.SendAsApp of Office 365 Exchange Online
#   2. grants admin consent for that
#   3. makes a client secret of {months} months
#   4. makes the service principal in Exchange Online, with the object ID of the enterprise application; that of the
#      app registration looks the same, and ends in 535 5.7.3
#   5. gives that service principal rights on the one mailbox: SMTP.SendAsApp opens no other
#   6. turns on Authenticated SMTP for the mailbox
#   7. prints what goes into the configuration of the relay, with the day the secret ends
#
# By hand it is the same: entra.microsoft.com, App registrations; steps 4 and 5 exist in PowerShell only.

$ErrorActionPreference = 'Stop'
$Mailbox = '{mailbox}'
$Name    = 'Mail relay'
$Ends    = (Get-Date).ToUniversalTime().Date.AddMonths({months})

Install-Module Microsoft.Graph.Applications, ExchangeOnlineManagement -Scope CurrentUser
Connect-MgGraph -Scopes 'Application.ReadWrite.All', 'AppRoleAssignment.ReadWrite.All' -NoWelcome

# 1. The app. 00000002-0000-0ff1-ce00-000000000000 is Office 365 Exchange Online, in every tenant.
$Exchange = Get-MgServicePrincipal -Filter "appId eq '00000002-0000-0ff1-ce00-000000000000'"
$Role     = $Exchange.AppRoles | Where-Object {{ $_.Value -eq 'SMTP.SendAsApp' }}
$Access   = @{{ ResourceAppId = $Exchange.AppId; ResourceAccess = @(@{{ Id = $Role.Id; Type = 'Role' }}) }}
$App = New-MgApplication -DisplayName $Name -SignInAudience AzureADMyOrg -RequiredResourceAccess $Access
$Enterprise = New-MgServicePrincipal -AppId $App.AppId

# 2. Admin consent.
New-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $Enterprise.Id -PrincipalId $Enterprise.Id `
    -ResourceId $Exchange.Id -AppRoleId $Role.Id | Out-Null

# 3. The secret. (Instead of one: upload a certificate to the app, and name it under oauth2.certificate.)
$Secret = Add-MgApplicationPassword -ApplicationId $App.Id `
    -PasswordCredential @{{ DisplayName = 'relay'; EndDateTime = $Ends }}

# 4. and 5. The service principal, and its rights. Older modules call -ObjectId -ServiceId.
Connect-ExchangeOnline -ShowBanner:$false
New-ServicePrincipal -AppId $App.AppId -ObjectId $Enterprise.Id -DisplayName $Name | Out-Null
Add-MailboxPermission -Identity $Mailbox -User $Enterprise.Id -AccessRights FullAccess | Out-Null

# 6. Authenticated SMTP for this mailbox, whatever the tenant says.
Set-CASMailbox -Identity $Mailbox -SmtpClientAuthenticationDisabled $false

# 7. For the relay.
@"

Put the secret, one line, into /etc/relay/own-secret (mode 0600) on the relay. It is shown this once:

    $($Secret.SecretText)

In relay.service: LoadCredential=own-secret:/etc/relay/own-secret
In /etc/relay/config.yaml:

upstreams:
  own:
    preset: m365
    username: $Mailbox
    oauth2:
      provider: microsoft
      tenant: $((Get-MgContext).TenantId)
      client_id: $($App.AppId)
      client_secret: {{credential: own-secret}}
      secret_expires: $($Ends.ToString('yyyy-MM-dd'))

Then, on the relay: relay check, systemctl daemon-reload, systemctl restart relay, relay auth test own.
Microsoft needs up to half an hour until the rights are known everywhere: 535 5.7.3 until then is no mistake of yours.
"@
"""


def guide(mailbox: str, months: int) -> str:
    """The script for that mailbox. Raises RelayError where it is no address."""
    try:
        plain = str(address(mailbox))
    except BadValue as error:
        raise RelayError(f"--mailbox: {error.problem}") from None
    if not plain.isascii() or "'" in plain or '"' in plain or "`" in plain or "$" in plain:
        raise RelayError("--mailbox: an address that PowerShell would read as something else")
    return _GUIDE.format(mailbox=plain, months=months)
