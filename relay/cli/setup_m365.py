"""What `relay auth setup m365` prints: the steps from nothing to a login with OAuth2, and a script that does them."""

from __future__ import annotations

from relay.cli.language import say
from relay.config.values import BadValue, address
from relay.errors import RelayError

_STEPS = "relay check, systemctl daemon-reload, systemctl restart relay, relay auth test own"
_TOLD = ("app", "consent", "secret", "principal", "smtp", "relay", "put", "unit", "configuration", "wait")
_GUIDE = """\
{head}
$ErrorActionPreference = 'Stop'
$Mailbox = '{mailbox}'
$Name    = 'Mail relay'
$Ends    = (Get-Date).ToUniversalTime().Date.AddMonths({months})

Install-Module Microsoft.Graph.Applications, ExchangeOnlineManagement -Scope CurrentUser
Connect-MgGraph -Scopes 'Application.ReadWrite.All', 'AppRoleAssignment.ReadWrite.All' -NoWelcome

# {app}
$Exchange = Get-MgServicePrincipal -Filter "appId eq '00000002-0000-0ff1-ce00-000000000000'"
$Role     = $Exchange.AppRoles | Where-Object {{ $_.Value -eq 'SMTP.SendAsApp' }}
$Access   = @{{ ResourceAppId = $Exchange.AppId; ResourceAccess = @(@{{ Id = $Role.Id; Type = 'Role' }}) }}
$App = New-MgApplication -DisplayName $Name -SignInAudience AzureADMyOrg -RequiredResourceAccess $Access
$Enterprise = New-MgServicePrincipal -AppId $App.AppId

# {consent}
New-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $Enterprise.Id -PrincipalId $Enterprise.Id `
    -ResourceId $Exchange.Id -AppRoleId $Role.Id | Out-Null

# {secret}
$Secret = Add-MgApplicationPassword -ApplicationId $App.Id `
    -PasswordCredential @{{ DisplayName = 'relay'; EndDateTime = $Ends }}

# {principal}
Connect-ExchangeOnline -ShowBanner:$false
New-ServicePrincipal -AppId $App.AppId -ObjectId $Enterprise.Id -DisplayName $Name | Out-Null
Add-MailboxPermission -Identity $Mailbox -User $Enterprise.Id -AccessRights FullAccess | Out-Null

# {smtp}
Set-CASMailbox -Identity $Mailbox -SmtpClientAuthenticationDisabled $false

# {relay}
@"

{put}

    $($Secret.SecretText)

{unit}
{configuration}

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

{then}
{wait}
"@
"""


def guide(mailbox: str, months: int) -> str:
    """The script for that mailbox. Raises RelayError where it is no address."""
    try:
        plain = str(address(mailbox))
    except BadValue as error:
        raise RelayError(f"--mailbox: {error.problem}") from None
    if not plain.isascii() or "'" in plain or '"' in plain or "`" in plain or "$" in plain:
        raise RelayError(say("setup.not-an-address"))
    head = "".join(
        [f"# {line}".rstrip() + "\n" for line in say("setup.head", mailbox=plain, months=months).splitlines()]
    )
    told = {name: say(f"setup.{name}") for name in _TOLD}
    then = say("setup.then", steps=_STEPS)
    return _GUIDE.format(head=head, then=then, mailbox=plain, months=months, **told)
