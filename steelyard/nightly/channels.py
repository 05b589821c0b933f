"""The ways in which an event reaches people: a webhook, and e-mail through SMTP."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage

from steelyard.errors import InfrastructureError
from steelyard.nightly.news import Event
from steelyard.nightly.settings import Mail, Notify, Webhook, from_environment

TIMEOUT_S = 20.0


def channels(notify: Notify) -> dict[str, Callable[[Event], None]]:
    """What sends an event, by the name of the channel. Each raises InputError or InfrastructureError if it cannot."""
    found: dict[str, Callable[[Event], None]] = {}
    if notify.webhook is not None:
        webhook = notify.webhook
        found["webhook"] = lambda event: post(webhook, event)
    if notify.mail is not None:
        mail = notify.mail
        found["mail"] = lambda event: send_mail(mail, event)
    return found


def post(webhook: Webhook, event: Event) -> None:
    """POST an event as JSON: event, kind, title, text and what `facts` hold. Anything but 2xx is a failure."""
    url = webhook.url or from_environment(webhook.url_env or "", "notify.webhook.url_env")
    told = {**event.facts, "event": event.event, "kind": event.kind, "title": event.title}
    body = json.dumps({**told, "text": f"{event.title}\n{event.text}"}, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "steelyard", "X-Steelyard-Event": event.event}
    if webhook.secret_env is not None:
        secret = from_environment(webhook.secret_env, "notify.webhook.secret_env")
        headers["X-Steelyard-Signature"] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    try:
        # Through an opener of its own: a redirect would turn the POST into a GET and look like success.
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(urllib.request.Request(url, body, headers, method="POST"), timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        raise _undelivered("The webhook", event, f"HTTP {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        why = str(getattr(error, "reason", error)).strip() or type(error).__name__
        raise _undelivered("The webhook", event, why) from error
    except ValueError:
        # Its text quotes the address, which may be a secret.
        raise _undelivered("The webhook", event, "its address is no http or https URL") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:  # type: ignore[override]
        return None


def send_mail(mail: Mail, event: Event) -> None:
    """Send an event as a plain-text message; its Message-ID is the event's name, by which a repeat is known."""
    message = EmailMessage()
    message["Subject"] = f"[steelyard] {event.title}"
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    message["Message-ID"] = f"<{event.event}@steelyard>"
    message.set_content(f"{event.text}\n")
    try:
        with _connected(mail) as server:
            if mail.user_env is not None:
                server.login(
                    from_environment(mail.user_env, "notify.mail.user_env"),
                    from_environment(mail.password_env or "", "notify.mail.password_env"),
                )
            refused = server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise _undelivered(f"{mail.host}:{mail.port}", event, str(error) or type(error).__name__) from error
    except ValueError as error:
        # A password that is not ASCII, for one: the protocol's login cannot say it, and the text must not.
        why = f"user, password or an address cannot be sent ({type(error).__name__})"
        raise _undelivered(f"{mail.host}:{mail.port}", event, why) from None
    if refused:
        raise _undelivered(f"{mail.host}:{mail.port}", event, f"refused for {', '.join(refused)}")


def _connected(mail: Mail) -> smtplib.SMTP:
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    server = smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S)
    try:
        if mail.security == "starttls":
            server.starttls(context=ssl.create_default_context())
    except BaseException:
        server.close()
        raise
    return server


def _undelivered(where: str, event: Event, why: str) -> InfrastructureError:
    return InfrastructureError(
        f"{where} did not take the event {event.event}: {why}.",
        remedy="It is kept, and sent again with the next one; correct `notify` in nightly.yaml if this stays.",
    )
